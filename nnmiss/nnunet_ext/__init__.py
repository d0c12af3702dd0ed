"""The doorway folder through which nnU-Net's own commands find our trainers."""
