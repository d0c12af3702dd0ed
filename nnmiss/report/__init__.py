"""One self-contained HTML page about results: tables, figures, training, data and a viewer of chosen cases."""
