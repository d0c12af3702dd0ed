"""What the packed shared-encoder network costs against stock nnU-Net's, and the width at which the cost is equal.

The network: nnU-Net's encoder with one input channel, applied to each present modality; at every scale one 1x1x1 linear
map per present modality, summed; nnU-Net's decoder. Operations are counted by torch on the meta device, so nothing is
computed; memory is nnU-Net's own proxy, the number of values that convolutions put out.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch.utils.flop_counter import FlopCounterMode

from nnmiss.networks.architecture import build_unet

WIDTHS = tuple(i / 16 for i in range(1, 17))
MEMORY_SLACK = 1.1  # a memory proxy up to this factor above stock's is left alone


def mean_present(num_modalities: int) -> float:
    """Mean number of present modalities over all 2^M - 1 subsets: M 2^(M-1) / (2^M - 1); 2.13 for M = 4."""
    return num_modalities * 2 ** (num_modalities - 1) / (2**num_modalities - 1)


@dataclass
class UNetCost:
    """Operations and memory proxy of one U-Net of a plan, for one patch."""

    configuration: ConfigurationManager
    num_input_channels: int
    num_outputs: int
    width_factor: float = 1.0

    @cached_property
    def _network(self) -> torch.nn.Module:
        with torch.device("meta"):
            return build_unet(self.configuration, self.num_input_channels, self.num_outputs, True, self.width_factor)

    @cached_property
    def _run(self) -> tuple[int, int, list[torch.Size]]:
        """Operations of the encoder and of the decoder, and the shapes (1, C, *spatial) between them."""
        image = torch.empty(1, self.num_input_channels, *self.configuration.patch_size, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as encoder:
            features = self._network.encoder(image)
        with torch.no_grad(), FlopCounterMode(display=False) as decoder:
            self._network.decoder(features)
        return encoder.get_total_flops(), decoder.get_total_flops(), [f.shape for f in features]

    @property
    def encoder_flops(self) -> int:
        return self._run[0]

    @property
    def decoder_flops(self) -> int:
        return self._run[1]

    @property
    def fusion_flops(self) -> int:
        """One C -> C linear map at every scale, for one modality."""
        return sum(2 * shape[1] * shape.numel() for shape in self._run[2])

    @property
    def encoder_memory(self) -> int:
        return int(self._network.encoder.compute_conv_feature_map_size(self.configuration.patch_size))

    @property
    def decoder_memory(self) -> int:
        return int(self._network.decoder.compute_conv_feature_map_size(self.configuration.patch_size))

    @property
    def output_memory(self) -> int:
        """Values in the encoder's outputs: all that activation checkpointing of the encoder keeps."""
        return sum(shape.numel() for shape in self._run[2])


def packed_flops(unet: UNetCost, num_present: float) -> float:
    """Operations of the packed network with `num_present` modalities (may be a mean)."""
    return num_present * (unet.encoder_flops + unet.fusion_flops) + unet.decoder_flops


def packed_memory(unet: UNetCost, num_modalities: int, checkpointing: bool, samples: int = 1) -> int:
    """Memory proxy of a pass of the packed network over `samples` samples with all modalities present.

    With `checkpointing` the encoder's outputs are kept and the rest is recomputed, one image at a time.
    """
    if checkpointing:
        return samples * (num_modalities * unet.output_memory + unet.decoder_memory) + unet.encoder_memory
    return samples * (num_modalities * unet.encoder_memory + unet.decoder_memory)


def largest_width(fits: Callable[[float], bool], widths: Sequence[float] = WIDTHS) -> float | None:
    """The largest of ascending `widths` for which `fits` holds (then also for all smaller ones); None if none does."""
    low, high = 0, len(widths)  # fits(widths[i]) for i < low, not for i >= high
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if fits(widths[middle]) else (low, middle)
    return widths[low - 1] if low else None


def cost_block(configuration: ConfigurationManager, num_modalities: int, num_outputs: int,
               blank_is_missing: bool = False) -> dict:
    """The "nnmiss" block of one configuration of a plan.

    Args:
        configuration: the stock configuration: architecture, patch size and batch size.
        num_modalities: M, at least 2.
        num_outputs: output channels of the network (classes with background, or regions).
        blank_is_missing: noted for preprocessing.

    Returns:
        width_factor: the largest of WIDTHS at which a pass costs at most stock's, averaged over all subsets.
        activation_checkpointing: whether, at that width and with all modalities, the proxy exceeds stock's.
        micro_batch: samples per pass; the batch size unless even with checkpointing memory exceeds stock's by 10 %.
        blank_is_missing, estimates: the numbers behind; equal_memory_width_factor is None when no width is that small.
    """
    def unet(width: float) -> UNetCost:
        return UNetCost(configuration, 1, num_outputs, width)

    stock = UNetCost(configuration, num_modalities, num_outputs)
    stock_flops = stock.encoder_flops + stock.decoder_flops
    stock_memory = stock.encoder_memory + stock.decoder_memory
    present = mean_present(num_modalities)
    width = largest_width(lambda w: packed_flops(unet(w), present) <= stock_flops) or WIDTHS[0]
    equal_memory = largest_width(lambda w: packed_memory(unet(w), num_modalities, False) <= stock_memory)
    chosen = unet(width)
    memory = packed_memory(chosen, num_modalities, False)
    checkpointing = memory > stock_memory
    batch_size = configuration.batch_size
    flops = packed_flops(chosen, present)
    return {
        "width_factor": width,
        "activation_checkpointing": checkpointing,
        "micro_batch": fitting_micro_batch(
            batch_size, lambda n: packed_memory(chosen, num_modalities, checkpointing, n), batch_size * stock_memory),
        "blank_is_missing": bool(blank_is_missing),
        "estimates": {
            "stock_gflops": round(stock_flops / 1e9, 3),
            "network_gflops_mean": round(flops / 1e9, 3),
            "relative_cost": round(flops / stock_flops, 4),
            "relative_memory_all_modalities": round(memory / stock_memory, 4),
            "relative_memory_with_checkpointing": round(
                packed_memory(chosen, num_modalities, True, batch_size) / (batch_size * stock_memory), 4),
            "equal_cost_width_factor": width,
            "equal_memory_width_factor": equal_memory,
        },
    }


def fitting_micro_batch(batch_size: int, memory: Callable[[int], float], budget: float) -> int:
    """`batch_size` halved until memory(micro_batch) is at most 1.1 times `budget`; at least 1."""
    micro_batch = batch_size
    while micro_batch > 1 and memory(micro_batch) > MEMORY_SLACK * budget:
        micro_batch //= 2
    return micro_batch
