"""Tiny architectures that tests build networks from: 2D and 3D, plain and residual."""
from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnmiss.networks.architecture import build_unet
from nnmiss.networks.early_fusion_unet import EarlyFusionUNet
from nnmiss.networks.shared_encoder_unet import SharedEncoderUNet


def tiny_configuration(dim: int = 3, residual: bool = False, features=(6, 8, 10)) -> ConfigurationManager:
    """A configuration with a three-stage U-Net."""
    stages = len(features)
    arch = {
        "n_stages": stages,
        "features_per_stage": list(features),
        "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
        "kernel_sizes": [[3] * dim] * stages,
        "strides": [[1] * dim] + [[2] * dim] * (stages - 1),
        ("n_blocks_per_stage" if residual else "n_conv_per_stage"): [1] * stages,
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return ConfigurationManager({
        "batch_size": 2,
        "patch_size": [16] * dim,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": arch,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    })


def shared(num_modalities=4, dim=3, residual=False, fusion="concat", imputation="all", heads=3, checkpointing=False,
           deep_supervision=False, **options) -> SharedEncoderUNet:
    """A tiny shared-encoder network; further options are its own."""
    unet = build_unet(tiny_configuration(dim, residual), 1, heads, deep_supervision)
    return SharedEncoderUNet(unet, num_modalities, fusion, imputation, checkpointing, **options)


def early(num_modalities=4, dim=3, heads=3, deep_supervision=False) -> EarlyFusionUNet:
    """A tiny early-fusion network."""
    return EarlyFusionUNet(build_unet(tiny_configuration(dim), num_modalities, heads, deep_supervision), num_modalities)
