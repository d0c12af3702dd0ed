"""All 2^M - 1 subsets of simmlm from one call against one call per subset: operations and time.

python benchmarks/all_subsets_simmlm.py [--patch 64] [--features 16] [--repeats 3] [--level logits]

Same network, tile, device and memory layout; a separate call runs the experts of its subset. Times (CPU: processor
time) are the minimum of alternating repeats. The bound is M 2^(M-1) experts against M, where gate and mixing cost nothing.
"""
from __future__ import annotations

import argparse
import platform

import torch
from plain_unet import configuration
from step_times import seconds
from torch.utils.flop_counter import FlopCounterMode

from nnmiss.availability import all_subsets
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.networks.modality_experts import LEVELS, ModalityExperts

HEADS, STAGES = 3, 6


def gflops(work) -> float:
    """Operations of one call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modalities", type=int, default=4)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--level", choices=LEVELS, default="logits")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device, m = torch.device(args.device), args.modalities
    plan = configuration(args.features, STAGES)
    network = ModalityExperts([build_unet(plan, 1, HEADS, False) for _ in range(m)], HEADS, args.level, regions=True)
    network = fastest_layout(network.to(device), device).eval()
    x, presents = torch.randn(1, m, *[args.patch] * 3, device=device), torch.tensor(all_subsets(m), device=device)

    def together():
        return network.forward_subsets(x, presents)

    def separate():
        return torch.stack([network(x, present[None]) for present in presents], 1)

    difference = float((together() - separate()).abs().max())
    times = [[seconds(work, device, "cpu") for work in (together, separate)] for _ in range(args.repeats)]
    once, each = (min(column) for column in zip(*times))
    counted = [gflops(work) for work in (together, separate)]
    gate = gflops(lambda: [network.gate_weights(x, present[None]) for present in presents])
    experts = sum(e.numel() for e in network.experts.parameters()) / 1e6
    print(f"M = {m}, {len(presents)} subsets, patch {args.patch}^3, {args.features} features, {args.level}, {device}, "
          f"{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}, torch {torch.__version__}")
    print(f"parameters: experts {experts:.2f} M, gate {sum(p.numel() for p in network.gate.parameters()) / 1e6:.2f} M")
    print(f"experts run: {int(presents.sum())} separately, {m} together, bound {int(presents.sum()) / m:.2f}x")
    print(f"GFLOP: separately {counted[1]:.1f}, together {counted[0]:.1f} (gate {gate:.1f}), "
          f"{counted[1] / counted[0]:.2f}x")
    print(f"time: separately {each:.2f} s, together {once:.2f} s, {each / once:.2f}x; largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
