"""The plan of nnU-Net's plain 3D U-Net that benchmarks build networks from."""
from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager


def configuration(features: int, stages: int = 5, patch: int = 48, batch: int = 2) -> ConfigurationManager:
    """nnU-Net's plain 3D U-Net with `features` at the finest scale."""
    return ConfigurationManager({"patch_size": [patch] * 3, "batch_size": batch, "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages, "features_per_stage": [min(320, features * 2**i) for i in range(stages)],
            "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": [[3] * 3] * stages,
            "strides": [[1] * 3] + [[2] * 3] * (stages - 1), "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True}},
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}})
