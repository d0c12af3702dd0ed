"""Data sets brought into nnU-Net's raw format, one a file, and the table that names them."""
