"""Model folders as training leaves them, with random weights, made in a moment; and zips put together by hand."""
from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny_networks import tiny_configuration

from nnmiss.inference.checkpoints import write_checkpoint
from nnmiss.trainers import method_class

DATASET = "Dataset900_Made"
MODEL = "nnMissTrainerMetaKD__nnMissPlans__3d_fullres"
DATASET_JSON = {"channel_names": {"0": "flair", "1": "t1"}, "labels": {"background": 0, "a": 1}, "numTraining": 2,
                "file_ending": ".nii.gz", "dataset": {"patient_miller": {"images": [], "label": None}}}


def write_model(results: Path, method: str = "metakd", folds: tuple = (0,)) -> Path:
    """A trained model's folder below nnUNet_results."""
    cls = method_class(method)
    folder = results / DATASET / f"{cls.__name__}__nnMissPlans__3d_fullres"
    configuration = dict(tiny_configuration(3).configuration)
    configuration.update(data_identifier="nnMissPlans_3d_fullres", preprocessor_name="DefaultPreprocessor",
                         spacing=[1.0] * 3, batch_size=2, normalization_schemes=["ZScoreNormalization"] * 2,
                         use_mask_for_norm=[True] * 2,
                         nnmiss=dict(cls.network_settings))
    for part in ("data", "seg", "probabilities"):
        configuration[f"resampling_fn_{part}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{part}_kwargs"] = {"is_seg": part == "seg", "order": 1}
    plans = {"dataset_name": DATASET, "plans_name": "nnMissPlans", "image_reader_writer": "SimpleITKIO",
             "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
             "configurations": {"3d_fullres": configuration}}
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    manager = PlansManager(plans)
    for fold in folds:
        torch.manual_seed(fold)
        network = cls.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 2, 2,
                                                 enable_deep_supervision=False)
        place = folder / f"fold_{fold}"
        (place / "validation").mkdir(parents=True)
        write_checkpoint(place / "checkpoint_final.pth", {
            "network_weights": network.state_dict(), "optimizer_state": {"state": {0: torch.ones(1000)}},
            "current_epoch": 3,
            "init_args": {"configuration": "3d_fullres", "fold": fold, "plans": plans, "dataset_json": DATASET_JSON},
            "trainer_name": cls.__name__, "inference_allowed_mirroring_axes": (0, 1, 2), "grad_scaler_state": None,
            "nnmiss": {"method": method, "stage": "missing", "modalities": ["flair", "t1"], "state": {"w": [1.0, 1.0]}}})
        (place / "run.json").write_text(json.dumps({"settings": {}, "seed": 0, "validation_cases": ["patient_miller"]}))
        (place / "validation" / "results.csv").write_text(
            "case,subset,region,metric,value\npatient_miller,flair,a,dice,0.5\npatient_miller,t1,a,dice,0.25\n")
    return folder


def members(path: Path) -> dict[str, bytes]:
    """Name and content of everything in a zip."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def rewritten(path: Path, contents: dict[str, bytes], sign: bool = True) -> Path:
    """A zip of these contents, beside `path`. `sign`: with a manifest that lists what is there now."""
    contents = dict(contents)
    if sign:
        manifest, above = json.loads(contents["manifest.json"]), f"{DATASET}/{MODEL}/"
        manifest["files"] = {
            name.removeprefix(above): {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in contents.items() if name != "manifest.json"}
        contents["manifest.json"] = json.dumps(manifest).encode()
    target = path.with_name("changed.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return target
