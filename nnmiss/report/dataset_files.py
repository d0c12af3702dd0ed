"""Where the files behind results lie: ground truth, images, predictions, training folders, the table of availability."""
from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnmiss.atomic_files import read_json
from nnmiss.errors import NnmissError
from nnmiss.evaluation.predictions import find_predictions
from nnmiss.preprocessing.raw_dataset import RawCase, list_training_cases
from nnmiss.report.sources import DATASET, FOLD, Source, dataset_name_of

FOLDS_SHOWN = 3  # of one model


@dataclass
class Places:
    """Files of a data set as far as they are found; what is not there is None or empty."""

    dataset: str | None = None
    gt: list[Path] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    preprocessed: Path | None = None
    listed: dict[str, RawCase] = field(default_factory=dict)
    """Cases that dataset.json lists with their files."""
    file_ending: str = ".nii.gz"

    def images_of(self, case: str, modalities: list[str]) -> dict[str, Path]:
        """Modality -> file, of the first folder that has any of the case."""
        for folder in self.images:
            found = {name: folder / f"{case}_{channel:04d}{self.file_ending}" for channel, name in enumerate(modalities)}
            found = {name: path for name, path in found.items() if path.is_file()}
            if found:
                return found
        listed = self.listed.get(case)
        return {modalities[channel]: Path(path) for channel, path in listed.files.items()} if listed else {}

    def gt_of(self, case: str) -> Path | None:
        """The case's ground truth."""
        listed = self.listed.get(case)
        paths = [folder / f"{case}{self.file_ending}" for folder in self.gt]
        paths += [Path(listed.label)] if listed and listed.label else []
        return next((path for path in paths if path.is_file()), None)


def find_places(sources: list[Source], images: str | None = None, gt: str | None = None) -> Places:
    """Looks where the flags, summary.json, the arguments of the prediction and nnU-Net's folders point to.

    Raises NnmissError when a folder that was given does not exist.
    """
    for flag, folder in (("--images", images), ("--gt", gt)):
        if folder and not Path(folder).is_dir():
            raise NnmissError(f"{flag} {folder} is not a folder")
    places = Places()
    places.gt += [Path(gt)] if gt else []
    places.images += [Path(images)] if images else []
    for source in sources:
        said = _said(source, "gt")
        places.gt += [Path(said)] if said else []
        arguments = _object(source.pred / "predict_from_raw_data_args.json") if source.pred else {}
        places.images += [Path(arguments["i"])] if isinstance(arguments.get("i"), str) else []
        places.dataset = places.dataset or dataset_of(source, [*places.gt, *places.images])
        if source.dataset_json and isinstance(source.dataset_json.get("file_ending"), str):
            places.file_ending = source.dataset_json["file_ending"]
    if places.dataset:
        _add_nnunet_folders(places, sources)
    places.gt = [p for p in dict.fromkeys(places.gt) if p.is_dir()]
    places.images = [p for p in dict.fromkeys(places.images) if p.is_dir()]
    return places


def dataset_of(source: Source, paths: list[Path]) -> str | None:
    """DatasetXXX_Name of results: as summary.json says, else by their paths, else by the plans beside the predictions."""
    said = _said(source, "dataset")
    if said and DATASET.fullmatch(said) and Path(said).name == said:
        return said
    found = dataset_name_of(source.folder, source.pred, *paths)
    if found or not source.pred:
        return found
    named = _object(source.pred / "plans.json").get("dataset_name")
    return named if isinstance(named, str) else None


def nnunet_folder(variable: str, dataset: str, near: list[Path]) -> Path | None:
    """The data set's folder in nnU-Net's folder of that name: by the environment, else beside one of the paths."""
    roots = [Path(os.environ[variable])] if os.environ.get(variable) else []
    roots += [parent / variable for path in near for parent in list(path.parents)[:8]]
    return next((root / dataset for root in roots if (root / dataset).is_dir()), None)


def find_trainings(sources: list[Source], models: list[str], places: Places) -> tuple[dict[str, list[Path]], list[str]]:
    """Name -> folders fold_K: of --model, of validations, of the models that predictions say they are from.

    Returns them and a sentence for each that cannot be found. A name is that of the results or of the model's folder.
    Raises NnmissError when a folder of --model does not exist.
    """
    found: dict[str, list[Path]] = {}
    missing = []
    for model in models:
        folder = Path(model).absolute()
        if not folder.is_dir():
            raise NnmissError(f"--model {model} is not a folder")
        folds = [folder] if FOLD.fullmatch(folder.name) else folds_in(folder)
        if folds:
            found[folder.name if len(folds) > 1 else str(Path(*folds[0].parts[-2:]))] = folds
        else:
            missing.append(f"--model {model} has no folder fold_K")
    if models:
        return found, missing
    for source in sources:
        folds, reason = _folds_of(source, places)
        if folds:
            found[source.name] = folds
        else:
            missing.append(f"{source.name}: no training is shown, {reason}")
    return found, missing


def folds_in(model: Path) -> list[Path]:
    """The folders fold_K of a trained model, sorted."""
    return sorted(p for p in model.iterdir() if p.is_dir() and FOLD.fullmatch(p.name))


def predictions_of(source: Source, file_ending: str) -> tuple[dict[str, dict[str, Path]], str | None]:
    """Case -> subset -> segmentation, and a sentence where there is none."""
    if source.pred is None and source.imported:
        return {}, f"{source.name}: a portal returned scores alone"
    if source.pred is None:
        return {}, f"{source.name}: the segmentations are not where its summary.json says, or it says nothing"
    try:
        found = find_predictions(source.pred, source.modalities, file_ending)
    except NnmissError as error:
        return {}, f"{source.name}: {error}"
    cases: dict[str, dict[str, Path]] = {}
    for prediction in found.predictions:
        cases.setdefault(prediction.case, {})[prediction.subset] = prediction.path
    return cases, None


def _said(source: Source, key: str) -> str | None:
    """A text of `sources` in summary.json; None where it says nothing, or something else than a text."""
    said = source.summary.get("sources")
    said = said.get(key) if isinstance(said, dict) else None
    return said if isinstance(said, str) and said else None


def _add_nnunet_folders(places: Places, sources: list[Source]) -> None:
    """Adds what nnUNet_raw and nnUNet_preprocessed have of the data set."""
    near = [*(s.folder for s in sources), *(s.pred for s in sources if s.pred), *places.gt, *places.images]
    raw = nnunet_folder("nnUNet_raw", places.dataset, near)
    places.preprocessed = nnunet_folder("nnUNet_preprocessed", places.dataset, near)
    if raw:
        places.images += [raw / "imagesTs", raw / "imagesTr"]
        places.gt += [raw / "labelsTs", raw / "labelsTr"]
        content = _object(raw / "dataset.json")
        if isinstance(content.get("file_ending"), str):
            places.file_ending = content["file_ending"]
        if "dataset" in content:
            try:
                places.listed = {case.name: case for case in list_training_cases(raw, content)}
            except (NnmissError, KeyError):
                places.listed = {}  # images are a help to the reader, the report stands without
    if places.preprocessed:
        places.gt.append(places.preprocessed / "gt_segmentations")


def _folds_of(source: Source, places: Places) -> tuple[list[Path], str]:
    for folder in (source.folder, source.pred):
        if folder and FOLD.fullmatch(folder.parent.name) and (folder.parent / "run.json").is_file():
            return [folder.parent], ""
    if source.pred is None:
        return [], "as its predictions are not known; name the model with --model"
    record = next((r for r in _some_records(source.pred) if isinstance(r.get("model"), dict)), None)
    model = record["model"] if record else {}
    if not isinstance(model.get("folder"), str) or not places.dataset:
        return [], "as nothing says which model predicted; name it with --model"
    results = nnunet_folder("nnUNet_results", places.dataset, [source.pred, source.folder, *places.images, *places.gt])
    folder = results / model["folder"] if results else Path(model["folder"])
    folds = [folder / f"fold_{k}" for k in model.get("folds") or []]
    folds = [fold for fold in folds if fold.is_dir()]
    return folds, f"as its model {folder} is not there; set nnUNet_results or name it with --model"


def _some_records(pred: Path) -> list[dict[str, Any]]:
    """A CASE.json of each folder of predictions, enough to know the model."""
    folders = [pred, *sorted(p for p in pred.iterdir() if p.is_dir())]
    other = {"dataset.json", "plans.json", "summary.json", "predict_from_raw_data_args.json", "manifest.json"}
    firsts = [next((p for p in sorted(folder.glob("[!.]*.json")) if p.name not in other), None) for folder in folders]
    return [_object(path) for path in firsts if path]


def _object(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is none or it cannot be read: nothing that is asked here is needed."""
    try:
        content = read_json(path)
    except (NnmissError, OSError):
        return {}
    return content if isinstance(content, dict) else {}
