"""Classification data: a manifest of samples whose modalities differ in kind, from the raw folder to batches."""
