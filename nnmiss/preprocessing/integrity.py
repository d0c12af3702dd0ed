"""The cheap checks of a raw data set: names, channels, labels and headers, every problem named before work starts."""
from __future__ import annotations

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnmiss.availability import modality_names
from nnmiss.errors import NnmissError
from nnmiss.preprocessing.raw_dataset import RawCase
from nnmiss.preprocessing.read_case import check_channels, reason_of
from nnmiss.preprocessing.voxel_grid import grid_difference, itk_grid
from nnmiss.preprocessing.whole_file import why_not_whole

PROBLEMS_SHOWN = 50


def find_problems(cases: list[RawCase], dataset_json: dict) -> list[str]:
    """What is wrong with file names, channel indices, labels and the number of cases: one sentence a problem."""
    modalities = modality_names(dataset_json)
    problems = []
    if not cases:
        problems.append(f'no training case found: imagesTr and labelsTr hold no file ending in '
                        f'{dataset_json["file_ending"]} ("file_ending" in dataset.json)')
    elif len(cases) != dataset_json["numTraining"]:
        problems.append(f'dataset.json says "numTraining": {dataset_json["numTraining"]}, but there are {len(cases)} '
                        "training cases: correct dataset.json, or find the missing or surplus files")
    for case in cases:
        if case.name.endswith("_seg"):
            problems.append(f"case {case.name}: names may not end in _seg, which nnU-Net uses itself: rename it")
        try:
            check_channels(case, modalities)
        except NnmissError as error:
            problems.append(str(error))
        if case.label is None:
            problems.append(f"case {case.name} has no label file: add it to labelsTr, or remove the case's images "
                            f"({', '.join(case.files.values())})")
    for channel, name in enumerate(modalities):
        if cases and not any(channel in case.files for case in cases):
            problems.append(f"no training case has modality {name} (channel {channel}): take it out of "
                            "channel_names in dataset.json")
    return problems


def find_header_problems(case: RawCase, reader_class: type[BaseReaderWriter]) -> list[str]:
    """Truncated files of one case, and files whose header disagrees with its first image's: one sentence a problem."""
    files = [*case.files.values(), *([case.label] if case.label else [])]
    problems, grids = [], {}
    for file in files:
        reason = why_not_whole(file)
        if reason is not None:
            problems.append(f"case {case.name}: {file} cannot be read ({reason}): restore or remove it")
            continue
        if reader_class is SimpleITKIO:
            try:
                grids[file] = itk_grid(file)
            except RuntimeError as error:
                problems.append(f"case {case.name}: {file} cannot be read ({reason_of(error)}): restore or remove it")
    first = next(iter(grids), None)
    for file, grid in grids.items():
        difference = grid_difference(grids[first], grid)
        if difference:
            problems.append(f"case {case.name}: {first} and {file} do not share a voxel grid ({difference})")
    return problems


def raise_problems(problems: list[str], dataset_name: str) -> None:
    """Raises one NnmissError that lists `problems`; does nothing when there are none."""
    if not problems:
        return
    shown = "".join(f"\n  - {p}" for p in problems[:PROBLEMS_SHOWN])
    more = f"\n  ... and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
    count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
    raise NnmissError(f"{dataset_name} has {count}:{shown}{more}")
