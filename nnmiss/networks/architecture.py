"""nnU-Net's U-Net of a plan, with another number of input channels and another width."""
from __future__ import annotations

from copy import deepcopy

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn


def scaled_width(features: int, width_factor: float) -> int:
    """`features` times `width_factor`, rounded to what tensor cores and vector units are filled by; at least 1.

    To a multiple of 8 from 32 features, of 4 from 16 on, where the original is one.
    """
    step = next((n for n, least in ((8, 32), (4, 16)) if features % n == 0 and features >= least), 1)
    return max(step, round(features * width_factor / step) * step)


def scaled_arch_kwargs(arch_kwargs: dict, width_factor: float) -> dict:
    """A copy of a plan's `arch_kwargs` with every `features_per_stage` scaled; depth, kernels and strides untouched."""
    scaled = deepcopy(arch_kwargs)
    scaled["features_per_stage"] = [scaled_width(f, width_factor) for f in arch_kwargs["features_per_stage"]]
    return scaled


def build_unet(configuration: ConfigurationManager, num_input_channels: int, num_output_channels: int,
               deep_supervision: bool, width_factor: float = 1.0) -> nn.Module:
    """The plan's U-Net (plain or residual encoder), initialised as nnU-Net does.

    Returns a module with `.encoder` (list of feature maps, finest first) and `.decoder`. With `width_factor` 1 and
    the plan's own number of channels it is exactly stock nnU-Net's network, parameter names included.
    """
    return get_network_from_plans(
        configuration.network_arch_class_name,
        scaled_arch_kwargs(configuration.network_arch_init_kwargs, width_factor),
        configuration.network_arch_init_kwargs_req_import,
        num_input_channels,
        num_output_channels,
        allow_init=True,
        deep_supervision=deep_supervision,
    )
