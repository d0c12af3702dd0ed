"""A folder of predictions as BraTS submissions: a flat folder and a zip per modality subset, and a manifest."""
from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nnmiss.availability import modality_names
from nnmiss.bounded_threads import in_threads
from nnmiss.brats_years import Challenge
from nnmiss.errors import NnmissError
from nnmiss.evaluation.predictions import Prediction, find_predictions, subset_order
from nnmiss.export.enhancing_rule import EnhancingRule
from nnmiss.export.export_case import CaseRules, export_case, wrong_id
from nnmiss.export.label_names import official_labels
from nnmiss.export.manifest import describe_export, describe_subset
from nnmiss.export.output_folder import check_output, filling, publish
from nnmiss.export.reference_images import ReferenceImages, find_reference_images
from nnmiss.export.zip_files import write_flat_zip

FLAT = "submission"  # folder and zip of predictions that lie in no folder of a subset


@dataclass(frozen=True)
class ExportOptions:
    """What may differ between exports of the same predictions.

    Attributes:
        et_rule: takes small enhancing tumours away; None: none.
        uncertainty: also write CASE_unc_whole, _unc_core and _unc_enhance (2019 and 2020) from CASE.npz.
        any_id: case names need not be ids of the year (for rehearsals; the portal rejects them).
        overwrite: replace an earlier export in the output folder.
        num_threads: cases worked on at once.
        progress: show a bar.
    """

    et_rule: EnhancingRule | None = None
    uncertainty: bool = False
    any_id: bool = False
    overwrite: bool = False
    num_threads: int = 1
    progress: bool = False


def export_predictions(pred: str | Path, references: str | Path, output: str | Path, challenge: Challenge,
                       dataset_json: dict, options: ExportOptions = ExportOptions()) -> dict:
    """Writes OUTPUT/<subset>/CASE.nii.gz, OUTPUT/<subset>.zip and OUTPUT/manifest.json; flat predictions: `submission`.

    Args:
        pred: output of nnmiss_predict: flat, or one folder per subset.
        references: the cases' own images, as `find_reference_images` finds them.
        challenge: of `nnmiss.brats_years.find_challenge`.
        dataset_json: of the data set that the model was trained on; names the labels.

    Returns:
        The manifest (documentation/reference/files.md). A case that cannot be exported is left out and stands in its
        "failures"; cases that have an image, but neither segmentation beside it nor prediction, are in "missing" of
        each subset; "absent_subsets" are those without any prediction, where there are several. When no case could
        be exported, nothing is written, and an earlier export stays.

    Raises NnmissError for what concerns all cases, before anything is written.
    """
    pred, output = Path(pred), Path(output)
    rules = _rules(challenge, dataset_json, options)
    check_output(output, options.overwrite)
    if not pred.is_dir():
        raise NnmissError(f"prediction folder {pred} does not exist: give what nnmiss_predict wrote to (-o) as -i")
    modalities = _modalities(dataset_json)
    found = find_predictions(pred, modalities, dataset_json.get("file_ending", ".nii.gz"))
    cases = list(dict.fromkeys(p.case for p in found.predictions))
    if not options.any_id and not any(map(challenge.is_id, cases)):
        raise NnmissError(f"all {len(cases)} case(s), as {cases[0]}: {wrong_id(cases, challenge)}")
    images = find_reference_images(references)
    groups: dict[str, list[Prediction]] = {}
    for prediction in found.predictions:
        groups.setdefault(FLAT if prediction.path.parent == pred else prediction.subset, []).append(prediction)
    failures = [{"subset": None, "case": None, "reason": error} for error in found.errors]
    absent = [name for name in subset_order(modalities) if name not in groups] if len(groups) > 1 else []
    with filling(output) as temporary:
        subsets = {}
        with tqdm(total=len(found.predictions), desc="cases", disable=not options.progress) as bar:
            for name, predictions in groups.items():
                cases, failed = _export_group(temporary / name, predictions, images, rules, options.num_threads, bar.update)
                failures += [{"subset": name, "case": case, "reason": reason} for case, reason in failed.items()]
                missing = sorted(set(images.demanded) - {p.case for p in predictions})
                subsets[name] = describe_subset(name, cases, missing, _zip(temporary, name, cases))
        manifest = describe_export(pred, Path(references), rules, subsets, absent, failures, found.notes,
                                   len(images.found))
        if any(subset["n_cases"] for subset in subsets.values()):
            publish(temporary, output, manifest)
    return manifest


def _rules(challenge: Challenge, dataset_json: dict, options: ExportOptions) -> CaseRules:
    """Checks what concerns all cases. Raises NnmissError."""
    if options.uncertainty and not challenge.uncertainty:
        raise NnmissError(f"{challenge.title} takes no uncertainty maps, BraTS 2019 and 2020 do: leave --uncertainty out")
    if options.et_rule:
        options.et_rule.check(challenge)
    if options.num_threads < 1:
        raise NnmissError(f"-np is {options.num_threads}, expected at least 1")
    labels = official_labels(dataset_json, challenge)
    return CaseRules(challenge, dataset_json, labels, options.et_rule, options.uncertainty, options.any_id)


def _modalities(dataset_json: dict) -> list[str]:
    """Names in channel order; unlike the rest of nnmiss, one alone is fine (MEN-RT, predicted with nnU-Net)."""
    channels = dataset_json.get("channel_names")
    if isinstance(channels, dict) and len(channels) == 1:
        return [str(name) for name in channels.values()]
    return modality_names(dataset_json)


def _export_group(folder: Path, predictions: list[Prediction], images: ReferenceImages, rules: CaseRules,
                  num_threads: int, done: Callable[[], object]) -> tuple[dict[str, dict], dict[str, str]]:
    """Writes the cases of one subset. Returns case -> description of those written, and case -> reason of the others."""
    folder.mkdir()
    cases, failed = {}, {}

    def one(prediction: Prediction) -> dict:
        files, description = export_case(prediction, images.of(prediction.case), rules)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return {**description, "files": sorted(files)}

    with closing(in_threads(one, predictions, num_threads)) as results:  # zlib and numpy let other threads run
        for prediction, future in results:
            try:
                cases[prediction.case] = future.result()
            except NnmissError as error:
                failed[prediction.case] = str(error)
            except Exception as error:  # whatever is wrong with this case, the others still finish
                failed[prediction.case] = f"{type(error).__name__}: {error}"
            done()
    return cases, failed


def _zip(temporary: Path, name: str, cases: dict[str, dict]) -> str | None:
    """Zips the files of the cases, and removes those of a case that failed while it was written.

    Returns the zip's sha256; None without a case, the folder is removed then.
    """
    wanted = {file for case in cases.values() for file in case["files"]}
    for file in list((temporary / name).iterdir()):
        if file.name not in wanted:
            file.unlink()
    if not wanted:
        (temporary / name).rmdir()
        return None
    return write_flat_zip(temporary / f"{name}.zip", [temporary / name / file for file in wanted])
