"""The rules of BraTS submissions: their short names, what each demands and who says so, and what breaking one is called."""
from __future__ import annotations

from dataclasses import asdict, dataclass

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Rule:
    """One rule: `demand` in a line, `source` is where the organisers check it or what happens without."""

    demand: str
    source: str


# The order is that of the printed list. Sources: the organisers' repositories Sage-Bionetworks-Challenges/
# brats-dream-challenge-infra (2021), brats2023 (branch brats2023: 2023, main: 2024), brats-infra (tag brats2025; main:
# 2026), and the task pages of 2018 to 2020. See documentation/reference/brats_validation.md.
RULES = {
    "archive": Rule("a zip or tar of plain files, without links, passwords or paths that lead outside",
                    "utils.py of each year's validator: what it unpacks and what it leaves out"),
    "name": Rule("file names as the year's portal reads them, ending in .nii.gz, and no other files",
                 "2018 to 2020: task pages (ID.nii.gz); 2021: validate.py; from 2023: --pred_pattern of the workflows"),
    "duplicate": Rule("one file per case", "validate.py: 'Duplicate predictions found'"),
    "unknown-id": Rule("only cases of the official set", "validate.py: 'Unknown scan IDs'; IPP: GroundTruthSeg/NotFound"),
    "missing-case": Rule("every case of the official set",
                         "score.py of 2025 and 2026 scores absent cases Dice 0; before, means are over fewer cases"),
    "unreadable": Rule("files that open as NIfTI and are whole",
                       "validate.py: 'cannot be opened'; it reads headers only, so a file cut short fails in scoring"),
    "dimensions": Rule("three-dimensional images", "validate2024.py of 2025, validate.py of 2026; scoring before"),
    "shape": Rule("the voxels of the case's images", "validate.py of 2023, validate2024.py of 2024; scoring in all years"),
    "geometry": Rule("origin, spacing and direction of the case's images",
                     "2020, 2021: CaPTk's scoring, without tolerance; 2023: the qform in validate.py; 2026: panoptica, "
                     "to 1e-5; other years do not look"),
    "type": Rule("whole numbers, best of type uint8", "scoring compares labels with integers"),
    "labels": Rule("only the labels of the year's files", "scoring passes over other values without a word"),
    "uncertainty": Rule("three uncertainty maps beside every segmentation or none, from 0 (certain) to 100",
                        "task pages of 2019 and 2020, task 3"),
    "empty": Rule("a segmentation that is not empty", "not checked officially; an empty one scores Dice 0"),
}


@dataclass(frozen=True)
class Finding:
    """One broken rule: in which case and file, what came, what was expected, what to do."""

    rule: str
    severity: str
    """"error" (rejected, penalised, or scored as something else than meant) or "warning"."""
    case: str | None
    file: str | None
    came: str
    expected: str
    todo: str

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def error(rule: str, came: str, expected: str, todo: str, case: str | None = None, file: str | None = None) -> Finding:
    """A finding that the portal or its scoring would act on."""
    return Finding(rule, ERROR, case, file, came, expected, todo)


def warning(rule: str, came: str, expected: str, todo: str, case: str | None = None,
            file: str | None = None) -> Finding:
    """A finding that the portal would let pass."""
    return Finding(rule, WARNING, case, file, came, expected, todo)
