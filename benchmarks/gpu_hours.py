"""What the published trainings of every segmentation method cost on BraTS: operations, and hours on a card of your choice.

python benchmarks/gpu_hours.py [--peak 312] [--utilisation 0.15] [--width 0.8125] [--folds 5] [--seeds 3] [--gpus 1 8 64]

Counts the forward pass of nnU-Net's plan for BraTS (128^3, 4 modalities, 6 stages from 32 to 320 features) on torch's meta
device and takes the backward pass as twice that. Nothing is timed: hours are operations over (peak x utilisation).
`--peak` is the card's with tensor cores in half precision: A100 312, H100 989, RTX 4090 165, V100 125, T4 65 TFLOP/s.
"""
from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch.utils.flop_counter import FlopCounterMode

from nnmiss.networks.architecture import build_unet
from nnmiss.trainers import METHODS
from nnmiss.trainers.settings import common_settings, stage_epochs

MODALITIES, HEADS, PATCH, BATCH = ["flair", "t1", "t1ce", "t2"], 3, (128, 128, 128), 2
ITERATIONS, VALIDATIONS = 250, 50  # of an epoch
CASES, TILES, SUBSETS = 251, 8, 15  # of a fold's final validation, without mirroring (validation_mirroring=false)
SHOWN = 2.5  # modalities that dropout leaves of a complete case on average (nnmiss.availability.draw_present)
NESTED = 3.04  # the same of the larger of SimMLM's two subsets (nnmiss.trainers.simmlm.draw_nested)
FEATURES = (32, 64, 128, 256, 320, 320)


def configuration() -> ConfigurationManager:
    """nnU-Net's 3d_fullres plan of BraTS."""
    stages = len(FEATURES)
    return ConfigurationManager({"architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages, "features_per_stage": list(FEATURES), "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3] * 3] * stages, "strides": [[1] * 3] + [[2] * 3] * (stages - 1),
            "n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True}},
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}})


def forward_tflops(channels: int, width: float = 1.0) -> tuple[float, float]:
    """(encoder, decoder) of one patch, in 1e12 operations (a multiplication and an addition are two)."""
    with torch.device("meta"), torch.no_grad():
        unet = build_unet(configuration(), channels, HEADS, True, width)
        with FlopCounterMode(display=False) as encoder:
            features = unet.encoder(torch.empty(1, channels, *PATCH))
        with FlopCounterMode(display=False) as decoder:
            unet.decoder(features)
    return encoder.get_total_flops() / 1e12, decoder.get_total_flops() / 1e12


@dataclass
class Cost:
    """One training: TFLOP of a patch's forward and training step by stage, and of its prediction with every subset."""

    forward: dict[str, float]
    step: dict[str, float]
    subsets: float

    def total(self, epochs: dict[str, int]) -> float:
        """TFLOP of all stages and the final validation."""
        training = sum(number * BATCH * (ITERATIONS * self.step[kind(stage)] + VALIDATIONS * self.forward[kind(stage)])
                       for stage, number in epochs.items())
        return training + CASES * TILES * self.subsets


def epochs_of(run: str) -> dict[str, int]:
    """Stage -> epochs of "METHOD" with its default preset, or of "METHOD --preset NAME"."""
    method, _, preset = run.partition(" --preset ")
    trainer = METHODS[method]
    settings = common_settings(trainer.known_settings(), trainer.presets, preset or trainer.default_preset, {})
    published = {stage.name: stage.epochs for stage in trainer.stages_of(MODALITIES, settings)}
    return stage_epochs(settings["num_epochs"], published, {})


def kind(stage: str) -> str:
    """A stage's name without the modality."""
    return stage.partition("_")[0]


def costs(width: float) -> dict[str, Cost]:
    """Cost of every method, with its default preset or the one named; a step is three forward passes.

    Four where activations are computed twice.
    """
    encoder, decoder = forward_tflops(len(MODALITIES))
    fusing = encoder + decoder  # stock nnU-Net: all channels at once
    one, rest = forward_tflops(1, width)  # the shared encoder of metakd and lckd, and their decoder
    expert = sum(forward_tflops(1))
    shared = {"warmup": 4 * one + rest, "missing": SHOWN * one + rest}
    shared = Cost(shared, {name: 3 * f for name, f in shared.items()}, 4 * one + SUBSETS * rest)
    experts = {"expert": expert, "joint": NESTED * expert}
    stages = {"reconstruct": 1, "segment": 1, "approximate": 2, "codistil": 2}  # networks that a forward pass has
    # approximate: the autoencoder computed twice, the teacher's gradient to its input alone. codistil: of complete cases
    steps = {"reconstruct": 3, "segment": 3, "approximate": 6, "codistil": 4}
    return {
        "modality_dropout": Cost({"train": fusing}, {"train": 3 * fusing}, SUBSETS * fusing),
        "metakd": shared,
        "metakd --preset paper": shared,
        "lckd": shared,
        "simmlm": Cost(experts, {"expert": 3 * expert, "joint": 4 * NESTED * expert}, 4 * expert),
        "all_stage": Cost({n: k * fusing for n, k in stages.items()}, {n: k * fusing for n, k in steps.items()},
                          SUBSETS * fusing),
    }


def hours_of_all(runs: list[float], gpus: int) -> float:
    """When the last of these runs (hours each) ends: one a GPU, begun in this order."""
    free = [0.0] * gpus
    for run in runs:
        heapq.heappush(free, heapq.heappop(free) + run)
    return max(free)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", type=float, default=312.0, help="TFLOP/s of the card. Default: 312, an A100")
    parser.add_argument("--utilisation", type=float, default=0.15, help="share of it that training reaches. Default: 0.15")
    parser.add_argument("--width", type=float, default=0.8125, help="metakd's and lckd's width factor. Default: 0.8125")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    args = parser.parse_args()
    rate = args.peak * args.utilisation * 3600 / 1e6  # EFLOP in an hour
    print(f"| method | iterations | TFLOP per iteration | EFLOP per run | hours per run | {args.folds} folds |")
    print("|---|---|---|---|---|---|")
    hours = {}
    for run, cost in costs(args.width).items():
        epochs = epochs_of(run)
        total = cost.total(epochs)
        hours[run] = total / 1e6 / rate
        steps = " / ".join(f"{name} {BATCH * cost.step[name]:.1f}" for name in dict.fromkeys(map(kind, epochs)))
        print(f"| `{run}` | {sum(epochs.values()) * ITERATIONS:,} | {steps} | {total / 1e6:.2f} | {hours[run]:.1f} | "
              f"{args.folds * hours[run]:.0f} |")
    for seeds in dict.fromkeys((1, args.seeds)):
        methods = [time for run, time in hours.items() if "--preset" not in run]
        runs = methods * (args.folds * seeds)  # as nnmiss_benchmark orders them: by seed, fold, method
        print(f"\n{len(runs)} runs ({len(methods)} methods x {args.folds} folds x {seeds} seeds), {sum(runs):.0f} hours: "
              + ", ".join(f"{gpus} GPUs {hours_of_all(runs, gpus):.0f} h" for gpus in args.gpus))


if __name__ == "__main__":
    main()
