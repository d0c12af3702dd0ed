"""One prediction of an incomplete case, from files to a file, against stock nnU-Net's prediction of the complete case.

python benchmarks/single_prediction.py [--shape 80 80 64] [--patch 48] [--features 16] [--width 1 0.75] [--no-mirroring]
python benchmarks/single_prediction.py --startup      (time to import what a prediction needs)

Both read the case's files, preprocess, predict with sliding windows, and write the segmentation, in this process with one
loading and one writing worker; networks are untrained. Times are the minimum of alternating repeats: on the CPU of the
processor (all threads; other processes do not prolong it), on CUDA wall time.
"""
from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from all_subsets import configuration, shake
from machine import processor
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from preprocessing import make_plan, write_case

from nnmiss.inference.predict_cases import Output, predict_cases
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.inference.wanted import Wanted
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.shared_encoder_unet import build_shared_encoder
from nnmiss.preprocessing.raw_dataset import list_cases

M = 4
# nnU-Net looks for a model's trainer when it loads the model, and imports it then; ours are imported at once
COMMANDS = {"nnUNetv2_predict": "from nnunetv2.inference import predict_from_raw_data as p; "
                                "p.recursive_find_trainer_class_by_name('nnUNetTrainer')",
            "nnmiss_predict": "import nnmiss.cli.predict"}


def plan_of(args, width: float) -> tuple[PlansManager, dict]:
    """The preprocessing benchmark's plan with an architecture, an "nnmiss" block and what export reads."""
    manager, dataset_json = make_plan(False)
    network = configuration(args.architecture, args.features, args.stages, [args.patch] * 3).configuration
    manager.plans["configurations"]["3d_fullres"].update(
        network, nnmiss={"width_factor": width, "fusion": args.fusion},
        resampling_fn_probabilities="resample_data_or_seg_to_shape",
        resampling_fn_probabilities_kwargs={"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None})
    return manager, dataset_json


def prepare(predictor: nnUNetPredictor, args, width: float):
    """Gives a predictor the untrained network that is its own. Returns it."""
    manager, dataset_json = plan_of(args, width)
    plan = manager.get_configuration("3d_fullres")
    heads = manager.get_label_manager(dataset_json).num_segmentation_heads
    ours = isinstance(predictor, MissingModalityPredictor)
    network = build_shared_encoder(plan, M, heads, False) if ours else build_unet(plan, M, heads, False)
    weights = shake(network).state_dict()
    predictor.manual_initialization(network, manager, plan, [weights], dataset_json, "benchmark", (0, 1, 2))
    return predictor


def ways(args, folder: Path, device: torch.device) -> dict:
    """Name -> function that predicts the case from files to a file."""
    files, _ = write_case(folder, tuple(args.shape), "int16")
    options = {"tile_step_size": 0.5, "use_mirroring": args.mirroring, "device": device,
               "perform_everything_on_device": device.type == "cuda", "allow_tqdm": False}
    stock = prepare(nnUNetPredictor(**options), args, 1)
    stock.network.to(device)  # stock's command has it there; our predictor moves its own
    work = {"stock, 4 of 4": lambda: stock.predict_from_files_sequential([files], [str(folder / "stock")], overwrite=True)}
    for k in range(1, M + 1):
        some = folder / f"in_{k}"
        some.mkdir()
        for channel in range(k):
            shutil.copy(files[channel], some / f"case_{channel:04d}.nii.gz")

    def ours(predictor, k: int) -> None:
        failures = predict_cases(predictor, list_cases(folder / f"in_{k}", ".nii.gz"), Wanted(), Output(folder / "out"))
        if failures:
            raise SystemExit(str(failures))

    for width in args.width:
        predictor = prepare(MissingModalityPredictor(**options), args, width)
        for k in range(1, M + 1):
            work[f"nnmiss, width {width:g}, {k} of 4"] = lambda p=predictor, k=k: ours(p, k)
    return work


def startup(repeats: int) -> None:
    """Processor and wall seconds until all is imported that a prediction needs, in processes of their own."""
    best = {command: (float("inf"), float("inf")) for command in COMMANDS}
    for _ in range(repeats):
        for command, program in COMMANDS.items():
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, env={**os.environ, "nnUNet_raw": "", "MPLBACKEND": "agg"})
            after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            best[command] = min(best[command], (used, wall))
    for command, (used, wall) in best.items():
        print(f"{command:18s} imports: {used:.2f} s of the processor, {wall:.2f} s wall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[80, 80, 64])
    parser.add_argument("--architecture", choices=("plain", "residual"), default="plain")
    parser.add_argument("--fusion", choices=("concat", "linear", "mean"), default="concat")
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--stages", type=int, default=5)
    parser.add_argument("--width", type=float, nargs="+", default=[1.0, 0.75], help="width factors; the plan says which")
    parser.add_argument("--mirroring", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--startup", action="store_true")
    args = parser.parse_args()
    print(f"{processor()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
          f"torch {torch.__version__}")
    if args.startup:
        startup(args.repeats)
        return
    device = torch.device(args.device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as name:
        work = ways(args, Path(name), device)
        best = dict.fromkeys(work, float("inf"))
        for _ in range(args.repeats):
            for way, run in work.items():
                start = clock()
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    run()
                best[way] = min(best[way], clock() - start)
    print(f"case {'x'.join(map(str, args.shape))}, patch {args.patch}^3, {args.architecture} U-Net of {args.features} "
          f"features, fusion {args.fusion}, mirroring {args.mirroring}, {device}")
    reference = best["stock, 4 of 4"]
    for way, seconds in best.items():
        print(f"{way:28s}{seconds:8.2f} s{seconds / reference:8.2f}")


if __name__ == "__main__":
    main()
