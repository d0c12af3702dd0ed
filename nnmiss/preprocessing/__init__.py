"""Cases with holes through nnU-Net's fingerprint and preprocessor."""
