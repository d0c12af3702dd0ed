"""From a raw data set with holes to preprocessed cases: check, fingerprint, plan, report, preprocess."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnmiss.atomic_files import remove_leftovers
from nnmiss.availability import modality_names, read_availability
from nnmiss.errors import NnmissError
from nnmiss.folder_lock import only_one
from nnmiss.planners.base import NnmissPlannerMixin
from nnmiss.planners.plain import nnMissPlanner
from nnmiss.preprocessing.availability_table import read_table
from nnmiss.preprocessing.case_pool import usable_processes
from nnmiss.preprocessing.choose_reader import choose_reader
from nnmiss.preprocessing.dataset_folders import find_dataset_name, load_dataset_json, require_folder
from nnmiss.preprocessing.fingerprint import MissingModalityFingerprintExtractor
from nnmiss.preprocessing.identical_files import describe_copies
from nnmiss.preprocessing.integrity import find_header_problems, find_problems, raise_problems
from nnmiss.preprocessing.preprocess_dataset import choose_configurations, copy_labels, preprocess_configuration
from nnmiss.preprocessing.preprocessor import MissingModalityPreprocessor
from nnmiss.preprocessing.raw_dataset import RawCase, list_cases, list_training_cases
from nnmiss.preprocessing.split_presets import FittedSplit, fit_preset, is_preset
from nnmiss.preprocessing.splits_file import choose_splits, install_splits, install_test_cases
from nnmiss.preprocessing.subset_report import write_subset_report

DEFAULT_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
DEFAULT_PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}  # nnU-Net's, and 4 for others


@dataclass(frozen=True)
class PrepareOptions:
    """What nnmiss_plan_and_preprocess can be told; the defaults are nnU-Net's."""

    planner: type[NnmissPlannerMixin] = nnMissPlanner
    configurations: list[str] | None = None  # None: the default ones that the plan has
    num_processes: list[int] | None = None  # one number, or one per configuration; None: nnU-Net's defaults
    num_processes_fingerprint: int = 8
    verify: bool = False  # read every voxel again, and check checksums
    clean: bool = False  # extract the fingerprint and preprocess every case anew
    num_foreground_voxels: int = 10**8  # values drawn a channel for the fingerprint's intensity statistics, nnU-Net's
    preprocess: bool = True
    blank_is_missing: bool = False
    splits: str | None = None  # a preset's name or a file
    gpu_memory_target_gb: float | None = None
    target_spacing: list[float] | None = None
    plans_name: str | None = None
    show_progress_bar: bool = True
    verbose: bool = False


@dataclass(frozen=True)
class Prepared:
    """What was made."""

    dataset_name: str
    folder: Path
    plans: dict
    configurations: list[str]  # those that were preprocessed
    errors: dict[str, str]  # "configuration, case" -> why it failed


def prepare_dataset(dataset: int | str, options: PrepareOptions | None = None) -> Prepared:
    """Plans and preprocesses one data set.

    Args:
        dataset: id or name.
        options: see PrepareOptions.

    Raises:
        NnmissError: everything that is wrong with the raw data, all cases named, before anything is planned; or a
            bad option; another process at work on it. Cases that fail later are in the result's `errors` while the
            others are done.
    """
    options = options or PrepareOptions()
    raw_root, preprocessed_root = require_folder("nnUNet_raw"), require_folder("nnUNet_preprocessed")
    name = find_dataset_name(dataset)
    if not (raw_root / name).is_dir():
        raise NnmissError(f"{name} has no raw data: {raw_root / name} is not a folder")
    with only_one(preprocessed_root / name, f"plans or preprocesses {name}"):
        for folder in (preprocessed_root / name, preprocessed_root / name / "gt_segmentations"):
            remove_leftovers(folder, nobody_writes=True)
        return _prepare(name, raw_root / name, preprocessed_root / name, options)


def _prepare(name: str, raw: Path, folder: Path, options: PrepareOptions) -> Prepared:
    dataset_json = load_dataset_json(raw)
    modalities = modality_names(dataset_json)
    cases = list_training_cases(raw, dataset_json, strict=False)
    print(f"\n{name}: {len(cases)} training cases, modalities {', '.join(modalities)}")
    check_raw(name, cases, dataset_json)
    if copies := describe_copies(cases, modalities):
        print(copies)
    preset = find_preset(options.splits, raw, cases, dataset_json["file_ending"])
    splits = choose_splits(preset or options.splits, raw, [case.name for case in cases])
    extract_fingerprint(name, options)
    if splits is not None:
        _install(splits, preset, raw, folder, shipped=options.splits is None)
    available = read_availability(folder, modalities)
    print(f"\nWhich modalities the training cases have (saved as {folder / 'subsets.csv'}, .md and .png):\n\n"
          + write_subset_report(available, modalities, folder) + "\n")
    _print_blank(folder, cases, modalities, options.blank_is_missing)
    plans = make_plan(name, options)
    chosen, lacking = choose_configurations(plans, options.configurations, DEFAULT_CONFIGURATIONS)
    for configuration in lacking:
        print(f"INFO: the plan has no configuration {configuration} for this data set, skipped")
    errors: dict[str, str] = {}
    if options.preprocess:
        for configuration, processes in zip(chosen, _processes(chosen, options, len(cases))):
            preprocessor = MissingModalityPreprocessor(options.verbose)
            preprocessor.show_progress_bar = options.show_progress_bar
            bad = preprocess_configuration(name, configuration, plans["plans_name"], processes, preprocessor,
                                           options.clean)
            errors.update({f"{configuration}, {case}": reason for case, reason in bad.items()})
        copy_labels(cases, folder / "gt_segmentations", dataset_json["file_ending"])
    return Prepared(name, folder, plans, chosen if options.preprocess else [], errors)


def check_raw(dataset_name: str, cases: list[RawCase], dataset_json: dict) -> None:
    """The cheap checks of the raw data. Raises one NnmissError that lists every problem."""
    problems = find_problems(cases, dataset_json)
    try:
        reader_class = choose_reader(dataset_json, cases)
    except NnmissError:
        raise_problems(problems, dataset_name)  # no image at all, say: the reason is among them
        raise
    raise_problems(problems + [p for case in cases for p in find_header_problems(case, reader_class)], dataset_name)


def find_preset(splits: str | None, raw: Path, cases: list[RawCase], file_ending: str) -> FittedSplit | None:
    """The preset that --splits names, fitted to the training cases and to imagesTs; None when it names none."""
    if splits is None or not is_preset(splits):
        return None
    images_ts = list_cases(raw / "imagesTs", file_ending) if (raw / "imagesTs").is_dir() else []
    fitted = fit_preset(splits, [case.name for case in cases], [case.name for case in images_ts])
    print("Splits: " + "\n".join(fitted.report()))
    return fitted


def _install(splits: list, preset: FittedSplit | None, raw: Path, folder: Path, shipped: bool) -> None:
    """Writes splits_final.json and, with a preset, test_cases.json, and says so."""
    about_test_cases = "" if shipped else install_test_cases(preset, folder)
    print("Splits: " + install_splits(splits, folder, shipped))
    if about_test_cases:
        print("Splits: " + about_test_cases)
    if preset is not None and preset.ids["test"]:
        images = raw / ("imagesTs" if preset.test_in_images_ts == len(preset.ids["test"]) else "imagesTr")
        print(f"Splits: to predict them: nnmiss_predict -i {images} --cases {folder / 'test_cases.json'} ...")


def extract_fingerprint(dataset_name: str, options: PrepareOptions) -> dict:
    """Reads all voxels for the fingerprint and availability.json, unless both are there, fit and need no check."""
    extractor = MissingModalityFingerprintExtractor(
        dataset_name, 1, options.verbose, options.blank_is_missing, thorough=options.verify)
    extractor.num_processes = usable_processes(options.num_processes_fingerprint, len(extractor.cases))
    extractor.show_progress_bar = options.show_progress_bar
    extractor.num_foreground_voxels_for_intensitystats = options.num_foreground_voxels
    reason = extractor.why_needed()
    if not (options.clean or options.verify) and reason is None:
        print("Fingerprint: kept, as no raw file changed since (--clean extracts it anew)")
    elif reason is not None and (extractor.folder / "dataset_fingerprint.json").is_file():
        print(f"Fingerprint: extracted anew, because {reason}")
    fingerprint = extractor.run(overwrite_existing=options.clean or options.verify)
    if options.verify:
        print("Integrity: every image and label was read, no problem found")
    return fingerprint


def make_plan(dataset_name: str, options: PrepareOptions) -> dict:
    """Plans with the chosen planner. Returns the plan; the file is in the preprocessed folder."""
    arguments = {"plans_name": options.plans_name, "gpu_memory_target_in_gb": options.gpu_memory_target_gb,
                 "overwrite_target_spacing": options.target_spacing}
    planner = options.planner(dataset_name, **{k: v for k, v in arguments.items() if v is not None})
    planner.blank_is_missing, planner.verbose = options.blank_is_missing, options.verbose
    return planner.plan_experiment()


def _processes(configurations: list[str], options: PrepareOptions, num_cases: int) -> list[int]:
    asked = options.num_processes or [DEFAULT_PROCESSES.get(c, 4) for c in configurations]
    if len(asked) == 1:
        asked = asked * len(configurations)
    if len(asked) != len(options.configurations or configurations):
        named = options.configurations or configurations
        raise NnmissError(f"-np takes one number or one per configuration ({', '.join(named)}), got {len(asked)} numbers")
    return [usable_processes(n, num_cases) for n in asked]


def _print_blank(folder: Path, cases: list[RawCase], modalities: list[str], blank_is_missing: bool) -> None:
    blank = (read_table(folder) or {}).get("blank", {})
    if not blank:
        return
    use = ("they are treated as missing" if blank_is_missing else
           "they are treated as images; --blank_is_missing treats them as missing")
    files = {case.name: case.files for case in cases}
    shown = [f"  {case}: " + ", ".join(f"{name} ({files[case][modalities.index(name)]})" for name in names)
             for case, names in list(blank.items())[:20]]
    if len(blank) > 20:
        shown.append(f"  ... and {len(blank) - 20} more cases (availability.json)")
    print(f"WARNING: {sum(map(len, blank.values()))} channel file(s) are blank (all zero or constant); {use}:\n"
          + "\n".join(shown))
