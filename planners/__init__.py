"""nnU-Net's planners with the block the multi-encoder network needs."""
