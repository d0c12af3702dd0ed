"""Cost of a training step against stock nnU-Net's: operations, bytes kept for the backward pass, peak of bytes, and time.

python benchmarks/training_step.py [--patch 48] [--features 16] [--repeats 3] [--clock wall]
python benchmarks/training_step.py -device cuda --patch 128 --features 32 --stages 6 --repeats 20

Same patch, batch, device and memory layout for all; metakd's and modality_dropout's steps are averaged over all 2^M - 1
subsets. Times are the minimum of interleaved repeats. On the CPU `--clock cpu` (the default) is processor time, which
other processes prolong less. On CUDA every combination of --precision and --compile is run, with the share of the card's
peak (--peak_tflops), the memory that torch's allocator gave out, and the copy of a batch to the card.
"""
from __future__ import annotations

import argparse
from contextlib import nullcontext
from math import comb

import torch
from machine import processor
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from plain_unet import configuration
from step_times import CLOCKS, copy_times, seconds
from torch.utils.flop_counter import FlopCounterMode

from nnmiss.kept_memory import freed_memory_kept
from nnmiss.losses.importance import ImportanceWeights
from nnmiss.losses.pairwise_distillation import pairwise_distillation
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.base import item_index
from nnmiss.networks.early_fusion_unet import EarlyFusionUNet
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.networks.shared_encoder_unet import SharedEncoderUNet
from nnmiss.planners.cost import cost_block
from nnmiss.planners.step_meter import StepMeter

M, HEADS = 4, 3


class Step:
    """One training step of one network, as its trainer does it.

    Args:
        name: for the table.
        network: stock's (called with the image alone), or one of ours.
        device: where it runs; on CUDA in channels-last order too, under autocast to `precision` and compiled if asked.
        counts: numbers of modalities it is shown.
        distil: with metakd's distillation.
    """

    def __init__(self, name: str, network, device: torch.device, counts: list[int], distil: bool = False,
                 precision: str = "float32", compiled: bool = False):
        self.name, self.distil, self.counts = name, distil, counts
        self.bare = fastest_layout(network.to(device), device)
        if device.type == "cuda":
            self.bare.to(memory_format=torch.channels_last_3d)
        self.stock = not hasattr(network, "num_modalities")
        self.optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True)
        self.ratios = ImportanceWeights(M).ratios()
        stages = len(network.encoder.output_channels)
        weights = [1 / 2**i for i in range(stages - 2)] + [0]
        self.loss = DeepSupervisionWrapper(
            DC_and_BCE_loss({}, {"batch_dice": False, "do_bg": True, "smooth": 1e-5, "ddp": False}),
            [w / sum(weights) for w in weights])
        if compiled:  # packed modalities vary in number, so ours compile what sees them with that dimension open
            for part in () if self.stock else ("encoder", "decoder"):
                setattr(network, part, torch.compile(getattr(network, part), dynamic=True))
        self.network = torch.compile(network) if compiled and self.stock else network
        self.autocast = (nullcontext if precision == "float32" else
                         lambda: torch.autocast(device.type, getattr(torch, precision)))
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")

    def losses(self, x, target, present):
        with self.autocast():
            if not self.distil:
                return self.loss(self.network(x) if self.stock else self.network(x, present), target)
            logits, features = self.network(x, present, return_features=True)
            distillation = pairwise_distillation(features[-1], item_index(present), self.ratios)
            return self.loss(logits, target) + 0.1 * distillation

    def __call__(self, x, target, present):
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(self.losses(x, target, present)).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.bare.parameters(), 12)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def gflops(self, *batch) -> float:
        """Operations of forward and backward pass."""
        with FlopCounterMode(display=False) as counter:
            self.losses(*batch).backward()
        return counter.get_total_flops() / 1e9

    def kept_mib(self, *batch) -> float:
        """What the forward pass keeps for the backward pass, without the parameters."""
        own = {p.untyped_storage().data_ptr() for p in self.bare.parameters()}
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

    def peak_mib(self, *batch) -> float:
        """Peak of the bytes held in forward and backward pass: on CUDA the allocator's, else of all tensors made."""
        self.optimizer.zero_grad(set_to_none=True)
        if batch[0].device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(batch[0].device)
            self.losses(*batch).backward()
            return torch.cuda.max_memory_allocated(batch[0].device) / 2**20
        with StepMeter() as meter:
            self.losses(*batch).backward()
        return meter.peak / 2**20

    def mean(self, of, linear: bool = True) -> float:
        """Mean over all subsets of of(number of modalities); where that is linear, two numbers tell."""
        share = {k: comb(M, k) / (sum(comb(M, n) for n in self.counts)) for k in self.counts}
        if not linear or len(share) == 1:
            return sum(of(k) * part for k, part in share.items())
        average = sum(k * part for k, part in share.items())
        fewest = of(1)
        return fewest + (of(M) - fewest) * (average - 1) / (M - 1)


def shown(k: int, batch: int, device) -> torch.Tensor:
    """`batch` samples with k of M modalities."""
    return (torch.arange(M, device=device) < k).expand(batch, M)


def make_steps(args: argparse.Namespace, plan: ConfigurationManager, **how) -> list[Step]:
    """Stock, modality_dropout, and metakd at every width with and without checkpointing."""
    device, every = torch.device(args.device), list(range(1, M + 1))
    planned = cost_block(plan, M, HEADS, regions=True)
    print(f"plan: width {planned['width_factor']}, {planned['estimates']}")
    steps = [Step("stock", build_unet(plan, M, HEADS, True), device, [M], **how),
             Step("modality_dropout", EarlyFusionUNet(build_unet(plan, M, HEADS, True), M), device, every, **how)]
    memory_saving = {"": {}, ", all recomputed": {"activation_checkpointing": True},
                     ", as planned": {key: planned[key] for key in ("activation_checkpointing", "whole_passes",
                                                                    "kept_images")}}
    for width in args.width or [1.0, planned["width_factor"]]:
        for name, settings in memory_saving.items():
            if name == ", as planned" and (width != planned["width_factor"] or not planned["activation_checkpointing"]):
                continue
            network = SharedEncoderUNet(build_unet(plan, 1, HEADS, True, width), M, **settings)
            steps.append(Step(f"metakd, width {width}{name}", network, device, every, True, **how))
    return [step for step in steps if any(name in step.name for name in args.only)
            and not any(name in step.name for name in args.skip)]


def figures_of(step: Step, args: argparse.Namespace, x, target, times: dict[int, float]) -> tuple[float, ...]:
    """Operations, bytes kept, peak of bytes, and time."""
    def on(what):
        return lambda k: what(x, target, shown(k, args.batch, x.device))

    return (step.mean(on(step.gflops)), step.mean(on(step.kept_mib)), on(step.peak_mib)(M),
            step.mean(times.__getitem__, linear=False))


def compare(args: argparse.Namespace, steps: list[Step]) -> None:
    """Prints one line per step, relative to the first."""
    device = torch.device(args.device)
    x = torch.randn(args.batch, M, *[args.patch] * 3, device=device)
    target = [torch.rand(args.batch, HEADS, *[args.patch // 2**i] * 3, device=device) > 0.9 for i in range(args.stages - 1)]
    best = {(step, k): float("inf") for step in steps for k in step.counts}
    for repeat in range(args.repeats + 1):
        for step, k in best:
            taken = seconds(lambda: step(x, target, shown(k, args.batch, device)), device, args.clock)  # noqa: B023
            best[step, k] = min(best[step, k], taken) if repeat else float("inf")  # the first run only warms up
    print(f"{'':34s}{'GFLOP':>18s}{'MiB kept, mean':>18s}{'MiB peak, all M':>18s}{'s per step':>19s}{'all M':>9s}")
    reference = None
    for step in steps:
        figures = figures_of(step, args, x, target, {k: best[step, k] for k in step.counts})
        reference = reference or figures
        cells = "".join(f"{value:9.2f} ({value / r:5.2f}x)" for value, r in zip(figures[:3], reference))
        share = f"  {figures[0] / figures[3] / 10 / args.peak_tflops:.0f} % of peak" if args.peak_tflops else ""
        print(f"{step.name:34s}{cells}{figures[3]:10.3f} ({figures[3] / reference[3]:5.2f}x)"
              f"{best[step, M] / reference[3]:8.2f}x{share}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--stages", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--width", type=float, nargs="+", help="default: 1 and the plan's")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names of steps; the first is 1.00x")
    parser.add_argument("--skip", nargs="+", default=[], help="parts of names of steps that are left out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("-device", "--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float16"], help="on CUDA: autocast to these")
    parser.add_argument("--compile", nargs="+", type=int, default=[0, 1], help="on CUDA: without and with torch.compile")
    parser.add_argument("--peak_tflops", type=float, help="of the card at that precision, as its data sheet says")
    args = parser.parse_args()
    plan = configuration(args.features, args.stages, args.patch, args.batch)
    cuda = args.device.startswith("cuda")
    print(f"patch {args.patch}^3, batch {args.batch}, {args.features} features, {args.stages} stages, "
          f"{torch.cuda.get_device_name() if cuda else processor()}, {torch.get_num_threads()} threads, "
          f"{'wall' if cuda else args.clock} time, torch {torch.__version__}")
    for precision in args.precision if cuda else ["float32"]:
        for compiled in args.compile if cuda else [0]:
            print(f"\n{precision}{', compiled' * compiled}")
            with freed_memory_kept(not cuda):  # as nnmiss_train does
                compare(args, make_steps(args, plan, precision=precision, compiled=bool(compiled)))
    if cuda:
        print(copy_times(torch.randn(args.batch, M, *[args.patch] * 3), torch.device(args.device)))


if __name__ == "__main__":
    main()
