"""Network families: each offers encode one modality, fuse a subset, decode."""
