"""All 2^M - 1 subsets of a tile from one call, against one call per subset and against stock nnU-Net's predictions.

python benchmarks/all_subsets.py [--architecture plain residual] [--fusion concat linear] [--patch 64] [--features 16]
python benchmarks/all_subsets.py --case 240 240 155 --device cuda [--features 32 --patch 128]   (one case, mirrored)
python benchmarks/all_subsets.py --memory [--modalities 8]   (peak memory against the number of subsets, one process each)

Same tile and mirrored versions, device and threads for all; times are the minimum of interleaved repeats (CPU: of the
processor). "separately" is one call per subset of the same network and code; "plain passes" the same through the network's
own forward, without what this package does for prediction. Stock is nnU-Net's early-fusion network at equal width, absent
channels zero, mirrored versions one after the other, in nnU-Net's own memory layout and in the channels-last one.
"""
from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import time
from types import SimpleNamespace

import torch
from machine import processor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nnmiss.availability import all_subsets
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.networks.shared_encoder_unet import SharedEncoderUNet

HEADS = 3
RESIDUAL_BLOCKS = [1, 3, 4, 6, 6, 6]  # nnU-Net's residual-encoder plans


def configuration(architecture: str, features: int, stages: int, patch: list[int]) -> ConfigurationManager:
    """nnU-Net's plain or residual-encoder 3D U-Net with `features` at the finest scale."""
    residual = architecture == "residual"
    blocks = {"n_blocks_per_stage": RESIDUAL_BLOCKS[:stages], "n_conv_per_stage_decoder": [1] * (stages - 1)} if residual \
        else {"n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1)}
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return ConfigurationManager({"patch_size": patch, "architecture": {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": stages, "features_per_stage": [min(320, features * 2**i) for i in range(stages)],
            "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": [[3] * 3] * stages,
            "strides": [[1] * 3] + [[2] * 3] * (stages - 1), **blocks, "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True}},
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}})


def shake(network: nn.Module) -> nn.Module:
    """Moves the weights away from their start, where all modalities' maps are alike and biases 0."""
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return network.eval()


def seconds(work, device: torch.device) -> float:
    """Time of one call: on the CPU that of the processor, which other processes do not prolong, else wall time."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    synchronise(device)
    start = clock()
    work()
    synchronise(device)
    return clock() - start


def synchronise(device: torch.device) -> None:
    """Waits for the GPU, if it is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ways(args, architecture: str, fusion: str, device: torch.device) -> dict:
    """Name -> function that gives the logits of all subsets, (images, S, K, *patch)."""
    m, patch = args.modalities, [args.patch] * 3
    plan = configuration(architecture, args.features, args.stages, patch)
    torch.manual_seed(0)
    network = shake(SharedEncoderUNet(build_unet(plan, 1, HEADS, False), m, fusion, args.imputation).to(device))
    plain = SharedEncoderUNet(build_unet(plan, 1, HEADS, False), m, fusion, args.imputation).to(device).eval()
    plain.load_state_dict(network.state_dict())
    fastest_layout(network, device)
    x, presents = torch.randn(args.images, m, *patch, device=device), torch.tensor(all_subsets(m), device=device)
    stock, stock_last = (build_unet(plan, m, HEADS, False).to(device).eval() for _ in range(2))
    stock_last.to(memory_format=torch.channels_last_3d)

    def each(run) -> Tensor:  # (images, subsets, K, *patch)
        return torch.stack([run(present) for present in presents], 1)

    def one_by_one(net, present: Tensor) -> Tensor:  # nnU-Net predicts mirrored versions one after the other
        return torch.cat([net(image[None] * present.view(1, m, 1, 1, 1)).float() for image in x])

    return {
        "together": lambda: network.forward_subsets(x, presents, args.batch),
        "separately": lambda: each(lambda p: network.forward_subsets(x, p[None], args.batch)[:, 0]),
        "plain passes": lambda: each(lambda p: plain(x, p.expand(len(x), -1)).float()),
        "stock": lambda: each(lambda p: one_by_one(stock, p)),
        "stock, channels last": lambda: each(lambda p: one_by_one(stock_last, p)),
    }


def compare(args, architecture: str, fusion: str, device: torch.device) -> None:
    """Prints one table."""
    work = ways(args, architecture, fusion, device)
    operations, logits = {}, {}
    for name, run in work.items():  # this first round also sets up what first calls do
        with FlopCounterMode(display=False) as counter:
            logits[name] = run()
        operations[name] = counter.get_total_flops() / 1e9
    difference = max(float((logits["together"] - logits[name]).abs().max()) for name in ("separately", "plain passes"))
    best = dict.fromkeys(work, float("inf"))
    for _ in range(args.repeats):
        for name in work:
            best[name] = min(best[name], seconds(work[name], device))
    print(f"\n{architecture} U-Net, fusion {fusion}: largest difference {difference:.1e}")
    print(f"{'':24s}{'GFLOP':>9s}{'bound':>8s}{'time':>10s}{'ratio':>8s}")
    for name in work:
        print(f"{name:24s}{operations[name]:9.1f}{operations[name] / operations['together']:8.2f}{best[name]:9.2f}s"
              f"{best[name] / best['together']:8.2f}", flush=True)


def predictor_of(args, device: torch.device) -> MissingModalityPredictor:
    """A predictor of an untrained network, as final validation makes one."""
    plan = configuration(args.architecture[0], args.features, args.stages, [args.patch] * 3)
    network = shake(SharedEncoderUNet(build_unet(plan, 1, HEADS, False), args.modalities, args.fusion[0], args.imputation))
    predictor = MissingModalityPredictor(args.step_size, use_mirroring=args.mirroring, device=device, allow_tqdm=False,
                                         perform_everything_on_device=device.type == "cuda")
    predictor.network, predictor.list_of_parameters, predictor.configuration_manager = network.to(device), None, plan
    predictor.allowed_mirroring_axes = (0, 1, 2)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=HEADS)
    return predictor


def one_case(args, device: torch.device) -> None:
    """All subsets of one case, from the preprocessed image to logits: time and peak memory."""
    predictor, subsets = predictor_of(args, device), all_subsets(args.modalities)[-(args.subsets or 0) :]
    image = torch.randn(args.modalities, *args.case)
    if device.type == "cuda":
        next(iter(predictor.predict_subsets(image, subsets[:1])))  # cuDNN chooses its kernels
        torch.cuda.reset_peak_memory_stats(device)
    synchronise(device)
    start = time.perf_counter()
    for _ in predictor.predict_subsets(image, subsets):
        pass
    synchronise(device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else \
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{len(subsets)} subsets of {args.modalities} modalities, case {'x'.join(map(str, args.case))}, patch "
          f"{args.patch}^3: {time.perf_counter() - start:.1f} s, peak {peak / 2**20:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", nargs="+", choices=("plain", "residual"), default=["plain", "residual"])
    parser.add_argument("--fusion", nargs="+", choices=("concat", "linear", "mean"), default=["concat", "linear"])
    parser.add_argument("--imputation", choices=("all", "bottleneck"), default="all")
    parser.add_argument("--modalities", type=int, default=4)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--stages", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16, help="(image, subset) pairs decoded at once")
    parser.add_argument("--images", type=int, default=2, help="mirrored versions that come in one call")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", type=int, nargs=3, metavar="VOXELS")
    parser.add_argument("--subsets", type=int, help="with --case: only the last so many")
    parser.add_argument("--step_size", type=float, default=0.5)
    parser.add_argument("--mirroring", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    device = torch.device(args.device)
    if args.patch % 2 ** (args.stages - 1):
        parser.error(f"--patch {args.patch} cannot be halved {args.stages - 1} times, as {args.stages} stages do")
    if not args.case or not args.subsets:  # a part of --memory prints its line alone
        print(f"M = {args.modalities}, {args.images} images, patch {args.patch}^3, {args.features} features, "
              f"{args.stages} stages, {device}, {torch.get_num_threads()} threads, {processor()}, "
              f"Python {platform.python_version()}, torch {torch.__version__}")
    if args.memory:
        for subsets in (1, 16, 64, 2**args.modalities - 1):
            case = [str(size) for size in args.case or (240, 240, 155)]
            subprocess.run([sys.executable, __file__, "--case", *case, "--modalities", str(args.modalities), "--subsets",
                            str(subsets), "--features", "2", "--stages", "3", "--patch", "80", "--fusion", "linear",
                            "--architecture", "plain", "--step_size", "1", "--no-mirroring"], check=True)
        return
    with torch.inference_mode(), torch.autocast("cuda", enabled=device.type == "cuda"):
        if args.case:
            one_case(args, device)
            return
        for architecture in args.architecture:
            for fusion in args.fusion:
                compare(args, architecture, fusion, device)


if __name__ == "__main__":
    main()
