"""What the packed shared-encoder network costs against stock nnU-Net's, and the widths of equal cost and equal memory.

The network: nnU-Net's encoder with one input channel, applied to each present modality; at every scale one 1x1x1 linear
map per present modality, summed, or another fusion; nnU-Net's decoder. Both are run on the meta device, so nothing is
computed.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnmiss.errors import NnmissError
from nnmiss.networks.architecture import scaled_width
from nnmiss.networks.shared_encoder_unet import checkpointed_parts
from nnmiss.planners.planned_step import PlannedSteps

WIDTHS = tuple(i / 16 for i in range(1, 17))
# Time is taken as operations / speed + bytes / bandwidth: operations that take as long as moving one byte of float32.
# Assumed for half precision on a data-centre GPU: convolutions sustain 100 TFLOP/s, memory 1.6 TB/s (2 bytes a value).
OPERATIONS_PER_BYTE = 30
MEMORY_MARGIN = 0.95  # of stock's peak; what convolutions take as workspace is not in the estimate


def mean_present(num_modalities: int) -> float:
    """Mean number of present modalities over all 2^M - 1 subsets: M 2^(M-1) / (2^M - 1); 2.13 for M = 4."""
    return num_modalities * 2 ** (num_modalities - 1) / (2**num_modalities - 1)


def relative_cost(flops: float, moved: float, stock_flops: float, stock_moved: float) -> float:
    """Time relative to stock's, from operations and bytes moved."""
    return (flops + OPERATIONS_PER_BYTE * moved) / (stock_flops + OPERATIONS_PER_BYTE * stock_moved)


def mean_cost(steps: PlannedSteps, width: float, recomputed: float = 0) -> tuple[float, float]:
    """Operations and bytes moved of the packed network's forward pass of a sample, averaged over all subsets.

    Args:
        recomputed: images of a sample that the backward pass encodes once more. A third of that counts, as a step takes
            about three forward passes.
    """
    m = steps.num_modalities
    fewest, most = steps.packed_forward(width, 1), steps.packed_forward(width, m)
    share = (mean_present(m) + recomputed / 3 - 1) / max(1, m - 1)  # both are linear in the number of modalities
    return (fewest.flops + share * (most.flops - fewest.flops), fewest.moved + share * (most.moved - fewest.moved))


def mean_recomputed(num_modalities: int, samples: int, kept: int, whole: int) -> float:
    """Images of a sample that a pass of `samples` samples recomputes, averaged over the subsets, all showing as many."""
    m = num_modalities
    return sum(comb(m, k) * sum(checkpointed_parts(k * samples, m, kept, whole)[1:])
               for k in range(1, m + 1)) / (2**m - 1) / samples


def filling_widths(features: Sequence[int]) -> list[float]:
    """The WIDTHS that leave features that are multiples of 8, from 16 on, multiples of 8.

    Tensor cores take half-precision channels in eights (NVIDIA's guidance, not measured here), so that 12 are worth no
    more than 16 cost, which OPERATIONS_PER_BYTE knows nothing of. Widths of 32 features are multiples of 8 anyway.
    """
    eights = [number for number in features if number >= 16 and number % 8 == 0]
    return [width for width in WIDTHS if all(scaled_width(number, width) % 8 == 0 for number in eights)]


def largest_width(cost: Callable[[float], float], limit: float, widths: Sequence[float] = WIDTHS,
                  first: float = 0.8) -> float | None:
    """The largest of ascending `widths` with cost(width) <= limit, or None; the cost never falls as the width grows.

    Costs take long to find, so where to look next is on a line through those known: about three looks, from `first` on.
    """
    low, high = -1, len(widths)  # widths[low] costs little enough, widths[high] too much
    below, above = (0.0, 0.0), None  # (width, cost) of these
    while high - low > 1:
        (w, c), (v, d) = below, above or (0.0, 0.0)
        aim = first if c == d else w + (limit - c) * (v - w) / (d - c)
        look = min(max(sum(width <= aim for width in widths) - 1, low + 1), high - 1)
        value = cost(widths[look])
        if value <= limit:
            low, below = look, (widths[look], value)
        else:
            high, above = look, (widths[look], value)
    return widths[low] if low >= 0 else None


def cost_block(configuration: ConfigurationManager, num_modalities: int, num_outputs: int,
               blank_is_missing: bool = False, regions: bool = False, save_memory: bool = True) -> dict:
    """The "nnmiss" block of one configuration of a plan.

    Args:
        configuration: the stock configuration: architecture, patch size and batch size.
        num_modalities: M, at least 2.
        num_outputs: output channels of the network (classes with background, or regions).
        blank_is_missing: noted for preprocessing.
        regions: whether labels are regions instead of classes.
        save_memory: False: no checkpointing and whole batches, whatever they take.

    Returns:
        width_factor: the largest of `filling_widths` at which a pass costs at most stock's, averaged over all subsets;
            another, smaller one only where none of these is cheap enough, or memory would not suffice.
        activation_checkpointing, micro_batch: what the step with all modalities (the warm-up) needs to hold at most 95 %
            of the bytes that stock's step holds; the batch size without checkpointing where that is little enough.
        whole_passes, kept_images: with checkpointing, up to how many images a pass recomputes nothing, and how many images
            of a larger one need not be recomputed, within those bytes.
        blank_is_missing, estimates: the numbers behind; equal_memory_width_factor, for whole batches without
            checkpointing, is None when no width is that small.
    """
    features = configuration.network_arch_init_kwargs["features_per_stage"]
    if len(features) < 2:
        patch = " x ".join(map(str, configuration.patch_size))
        raise NnmissError(f"nnU-Net planned a network of 1 stage for patches of {patch}, which has no decoder. Raise "
                          "-gpu_memory_target, or use larger images")
    steps = PlannedSteps(configuration, num_modalities, num_outputs, regions)
    batch_size, stock = configuration.batch_size, steps.stock_forward()
    stock_peak = steps.stock_peak(batch_size)
    target = MEMORY_MARGIN * stock_peak

    def costs(width: float) -> float:
        return relative_cost(*mean_cost(steps, width), stock.flops, stock.moved)

    checkpointing, micro_batch, whole, kept = False, batch_size, 0, 0
    equal_cost = largest_width(costs, 1, filling_widths(features)) or largest_width(costs, 1) or WIDTHS[0]
    equal_memory = largest_width(lambda w: steps.packed_peak(w, batch_size), target, first=equal_cost)
    width = equal_cost
    if save_memory:
        checkpointing, micro_batch, whole, kept = memory_saving(steps, width, batch_size, target)
        if planned_peak(steps, width, batch_size, checkpointing, micro_batch, kept) > target:  # even one sample at a time
            narrower = [w for w in WIDTHS if w < equal_cost]
            width = largest_width(lambda w: planned_peak(steps, w, batch_size, True, 1), target, narrower) or WIDTHS[0]
            checkpointing, micro_batch, whole, kept = memory_saving(steps, width, batch_size, target)
    recomputed = mean_recomputed(num_modalities, micro_batch, kept, whole) if checkpointing else 0
    flops, moved = mean_cost(steps, width, recomputed)
    return {
        "width_factor": width,
        "activation_checkpointing": checkpointing,
        "whole_passes": whole,
        "kept_images": kept,
        "micro_batch": micro_batch,
        "blank_is_missing": bool(blank_is_missing),
        "estimates": {
            "stock_gflops": round(stock.flops / 1e9, 3),
            "network_gflops_mean": round(flops / 1e9, 3),
            "relative_flops": round(flops / stock.flops, 4),
            "relative_bytes_moved": round(moved / stock.moved, 4),
            "relative_cost": round(relative_cost(flops, moved, stock.flops, stock.moved), 4),
            "stock_peak_mib": round(stock_peak / 2**20, 1),
            "peak_mib": round(planned_peak(steps, width, batch_size, checkpointing, micro_batch, kept) / 2**20, 1),
            "relative_memory_all_modalities": round(steps.packed_peak(width, batch_size) / stock_peak, 4),
            "relative_memory_with_checkpointing": round(steps.packed_peak(width, batch_size, True) / stock_peak, 4),
            "equal_cost_width_factor": equal_cost,
            "equal_memory_width_factor": equal_memory,
        },
    }


def planned_peak(steps: PlannedSteps, width: float, batch_size: int, checkpointing: bool, micro_batch: int,
                 kept: int = 0) -> int:
    """Bytes that a step over the whole batch holds at most, in passes of `micro_batch` samples."""
    return steps.packed_peak(width, micro_batch, checkpointing, -(-batch_size // micro_batch), kept)


def memory_saving(steps: PlannedSteps, width: float, batch_size: int, target: float) -> tuple[bool, int, int, int]:
    """(activation checkpointing, micro_batch, whole_passes, kept_images): the fastest that stays within `target` bytes.

    Checkpointing before smaller passes: it changes no result, where Dice over the samples of a pass does.
    """
    if steps.packed_peak(width, batch_size) <= target:
        return False, batch_size, 0, 0
    micro_batch = fitting_micro_batch(batch_size, lambda n: planned_peak(steps, width, batch_size, True, n), target)
    kept = largest_width(lambda n: planned_peak(steps, width, batch_size, True, micro_batch, int(n)), target,
                         range(1, micro_batch * steps.num_modalities - 1), first=micro_batch * steps.num_modalities / 2)
    return True, micro_batch, whole_passes(steps, width, batch_size, micro_batch, target), int(kept or 0)


def whole_passes(steps: PlannedSteps, width: float, batch_size: int, micro_batch: int, target: float) -> int:
    """The most images of a pass that, none recomputed, stay within `target` bytes; bytes are linear in their number."""
    one, every = (steps.packed_peak(width, micro_batch, False, -(-batch_size // micro_batch), shown=shown)
                  for shown in (1, steps.num_modalities))
    more = (target - one) / (every - one) * (steps.num_modalities - 1) * micro_batch
    return micro_batch + int(more) if more >= 0 else 0


def fitting_micro_batch(batch_size: int, memory: Callable[[int], float], target: float) -> int:
    """`batch_size` halved until memory(micro_batch) is at most `target`; at least 1."""
    micro_batch = batch_size
    while micro_batch > 1 and memory(micro_batch) > target:
        micro_batch //= 2
    return micro_batch
