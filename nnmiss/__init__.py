"""nnmiss: multi-modal learning with missing modalities, on nnU-Net's own pipeline."""

__version__ = "0.1.0"
