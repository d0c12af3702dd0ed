"""Times preprocessing of a case with holes against stock nnU-Net's preprocessing of the same case, complete.

    OMP_NUM_THREADS=1 python benchmarks/preprocessing.py [--shape 240 240 155] [--missing 2] [--repeats 5] [--resample]
    OMP_NUM_THREADS=1 python benchmarks/preprocessing.py --first_read [--dtype float32]

With --first_read, processor time of one file's reading by ITK, and of looking for damage, NaN and Inf at its first reading:
in one unpacking, as nnmiss does, and in one for the checksum and another for NaN and Inf.
"""
from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from machine import processor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnmiss.preprocessing.preprocessor import MissingModalityPreprocessor
from nnmiss.preprocessing.raw_dataset import RawCase
from nnmiss.preprocessing.whole_file import first_look, why_not_whole
from nnmiss.seeding import derive_seed

MODALITIES = ("flair", "t1", "t1ce", "t2")


def write_case(folder: Path, shape: tuple[int, int, int], dtype: str) -> tuple[list[str], str]:
    """One skull-stripped case (a ball of noise on zero background) with a nested tumour. Returns images and label."""
    rng = np.random.default_rng(derive_seed("preprocessing benchmark"))
    grid = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    radius = np.sqrt(sum(g**2 for g in grid))
    seg = (radius < 0.3).astype(np.uint8) + (radius < 0.2) + (radius < 0.1)
    files = []
    for channel, _ in enumerate(MODALITIES):
        image = ((radius < 0.8) * (rng.normal(500, 60, shape) + 80 * seg)).clip(0)
        files.append(_write(folder / f"case_{channel:04d}.nii.gz", image.astype(dtype)))
    return files, _write(folder / "case.nii.gz", seg)


def _write(path: Path, array: np.ndarray) -> str:
    sitk.WriteImage(sitk.GetImageFromArray(array.transpose(2, 1, 0)), str(path), True)
    return str(path)


def make_plan(resample: bool) -> tuple[PlansManager, dict]:
    """A plan with only what preprocessing reads: z-score within the mask; target spacing 1 mm, or 1.2 mm."""
    resampling = {f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg")}
    options = {"order_z": 0, "force_separate_z": None}
    plans = {
        "dataset_name": "Dataset999_Benchmark", "plans_name": "benchmark", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): {} for i in range(len(MODALITIES))},
        "configurations": {"3d_fullres": {
            "data_identifier": "benchmark", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
            "patch_size": [128, 128, 128], "spacing": [1.2] * 3 if resample else [1.0] * 3,
            "normalization_schemes": ["ZScoreNormalization"] * len(MODALITIES),
            "use_mask_for_norm": [True] * len(MODALITIES), **resampling,
            "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **options},
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **options}, "architecture": {}}}}
    dataset_json = {"channel_names": {str(i): m for i, m in enumerate(MODALITIES)}, "file_ending": ".nii.gz",
                    "labels": {"background": 0, "oedema": 1, "core": 2, "enhancing": 3}, "numTraining": 1}
    return PlansManager(plans), dataset_json


def seconds(function, *arguments) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def first_read(path: str, repeats: int) -> dict[str, float]:
    """Smallest processor time of each way to look at one file, alternating."""
    def twice():
        assert why_not_whole(path, thorough=True) is None
        assert np.isfinite(nibabel.load(path).dataobj.get_unscaled()).all()

    ways = {"itk_s": lambda: sitk.GetArrayFromImage(sitk.ReadImage(path)), "one_unpacking_s": lambda: first_look(path),
            "two_unpackings_s": twice}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name].append(time.process_time() - start)
    return {name: round(min(found[1:]), 3) for name, found in times.items()}


def main() -> None:
    """Alternates both, after one warm-up each, and prints the minima and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(240, 240, 155), help="voxels of 1 mm")
    parser.add_argument("--missing", type=int, default=2, choices=(0, 1, 2, 3), help="channel files taken away of 4")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="int16", help="of the image files, as float32 or int16 (BraTS)")
    parser.add_argument("--resample", action="store_true", help="resample to 1.2 mm")
    parser.add_argument("--first_read", action="store_true", help="time looking at one file for the first time")
    args = parser.parse_args()
    manager, dataset_json = make_plan(args.resample)
    configuration = manager.get_configuration("3d_fullres")
    stock, ours = DefaultPreprocessor(False), MissingModalityPreprocessor()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, label = write_case(folder, tuple(args.shape), args.dtype)
        if args.first_read:
            print(json.dumps({"machine": processor(), "shape": list(args.shape), "dtype": args.dtype,
                              **first_read(files[0], args.repeats)}, indent=4))
            return
        case = RawCase("case", dict(list(enumerate(files))[args.missing:]), label)
        calls = {
            "stock": (stock.run_case_save, f"{name}/stock", files, label, manager, configuration, dataset_json),
            "nnmiss": (ours.save_raw_case, case, name, manager, configuration, dataset_json, False, True),
        }
        times: dict[str, list[float]] = {key: [] for key in calls}
        for repeat in range(args.repeats + 1):
            for key, call in calls.items():
                elapsed = seconds(*call)
                times[key] += [elapsed] if repeat else []
                for old in folder.glob("*.b2nd"):
                    old.unlink()
    result = {"machine": processor(), "cores": os.cpu_count(),
              "shape": list(args.shape), "dtype": args.dtype, "resample": args.resample, "files": 4 - args.missing,
              "stock_complete_s": round(min(times["stock"]), 3), "nnmiss_with_holes_s": round(min(times["nnmiss"]), 3),
              "ratio": round(min(times["nnmiss"]) / min(times["stock"]), 3), "repeats": args.repeats}
    print(json.dumps(result, indent=4))


if __name__ == "__main__":
    main()
