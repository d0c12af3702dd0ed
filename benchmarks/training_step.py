"""Cost of a metakd training step against stock nnU-Net's: operations, bytes kept for the backward pass, and time.

python benchmarks/training_step.py [--patch 64] [--features 16] [--width 1.0 0.8125] [--repeats 3]

Same patch, batch, device and memory layout for all; metakd is averaged over all 2^M - 1 subsets. Times are the minimum
of interleaved repeats, given as ratios to stock's in the same run.
"""
from __future__ import annotations

import argparse
import platform
import time
from math import comb

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch.utils.flop_counter import FlopCounterMode

from nnmiss.losses.importance import ImportanceWeights
from nnmiss.losses.pairwise_distillation import pairwise_distillation
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.base import item_index
from nnmiss.networks.early_fusion_unet import EarlyFusionUNet
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.networks.shared_encoder_unet import SharedEncoderUNet

M, HEADS = 4, 3


def configuration(features: int, stages: int = 5) -> ConfigurationManager:
    """nnU-Net's plain 3D U-Net with `features` at the finest scale."""
    return ConfigurationManager({"architecture": {
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


class Step:
    """One training step of one network, as its trainer does it."""

    def __init__(self, name: str, network, device: torch.device, distil: bool = False, checkpointing: bool = False):
        self.name, self.network, self.distil = name, fastest_layout(network.to(device), device), distil
        if checkpointing:
            self.network.activation_checkpointing = True
        self.optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True)
        self.ratios = ImportanceWeights(M).ratios()
        stages = len(network.encoder.output_channels)
        weights = [1 / 2**i for i in range(stages - 2)] + [0]
        self.loss = DeepSupervisionWrapper(
            DC_and_BCE_loss({}, {"batch_dice": False, "do_bg": True, "smooth": 1e-5, "ddp": False}),
            [w / sum(weights) for w in weights])

    def losses(self, x, target, present):
        if not self.distil:
            return self.loss(self.network(x, present), target)
        logits, features = self.network(x, present, return_features=True)
        distillation = pairwise_distillation(features[-1], item_index(present), self.ratios)
        return self.loss(logits, target) + 0.1 * distillation

    def __call__(self, x, target, present):
        self.optimizer.zero_grad(set_to_none=True)
        self.losses(x, target, present).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()

    def seconds(self, *batch) -> float:
        """Wall time of one step."""
        synchronise(batch[0].device)
        start = time.perf_counter()
        self(*batch)
        synchronise(batch[0].device)
        return time.perf_counter() - start

    def gflops(self, *batch) -> float:
        """Operations of forward and backward pass."""
        with FlopCounterMode(display=False) as counter:
            self.losses(*batch).backward()
        return counter.get_total_flops() / 1e9

    def kept_megabytes(self, *batch) -> float:
        """What the forward pass keeps for the backward pass, without the parameters."""
        own = {p.untyped_storage().data_ptr() for p in self.network.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = self.losses(*batch)
        del loss
        return sum(kept.values()) / 2**20


def synchronise(device: torch.device) -> None:
    """Waits for the GPU, if it is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shown(k: int, batch: int, device) -> torch.Tensor:
    """`batch` samples with k of M modalities."""
    return (torch.arange(M, device=device) < k).expand(batch, M)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--width", type=float, nargs="+", default=[1.0, 0.8125])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device, plan = torch.device(args.device), configuration(args.features)
    steps = [Step("stock", EarlyFusionUNet(build_unet(plan, M, HEADS, True), M), device)]
    for width in args.width:
        for checkpointing in (False, True):
            steps.append(Step(f"metakd, width {width}{', checkpointing' * checkpointing}",
                              SharedEncoderUNet(build_unet(plan, 1, HEADS, True, width), M), device, True, checkpointing))
    x = torch.randn(args.batch, M, *[args.patch] * 3, device=device)
    scales = [args.patch // 2**i for i in range(4)]
    target = [(torch.rand(args.batch, HEADS, s, s, s, device=device) > 0.9) for s in scales]
    counts = {step: ([M] if step is steps[0] else list(range(1, M + 1))) for step in steps}
    best = {(step, k): float("inf") for step in steps for k in counts[step]}
    for _ in range(args.repeats):
        for step, k in best:
            best[step, k] = min(best[step, k], step.seconds(x, target, shown(k, args.batch, device)))

    def mean(step, of) -> float:
        share = {k: comb(M, k) for k in counts[step]}
        return sum(of(step, k) * n for k, n in share.items()) / sum(share.values())

    print(f"patch {args.patch}^3, batch {args.batch}, {args.features} features, {device}, "
          f"{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}, torch {torch.__version__}")
    print(f"{'':38s}{'GFLOP':>18s}{'MB kept, mean':>18s}{'MB kept, all M':>18s}{'s per step':>18s}{'all M':>9s}")
    reference = None
    for step in steps:
        def batch(k):
            return x, target, shown(k, args.batch, device)

        figures = (mean(step, lambda s, k: s.gflops(*batch(k))), mean(step, lambda s, k: s.kept_megabytes(*batch(k))),
                   step.kept_megabytes(*batch(M)), mean(step, lambda s, k: best[s, k]))
        reference = reference or figures
        cells = "".join(f"{value:9.2f} ({value / r:5.2f}x)" for value, r in zip(figures, reference))
        print(f"{step.name:38s}{cells}{best[step, M] / reference[3]:8.2f}x")


if __name__ == "__main__":
    main()
