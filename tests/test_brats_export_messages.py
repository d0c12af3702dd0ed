"""What nnmiss_export_brats says of what lacks or fails: cases and subsets that are absent, mistakes that concern all."""
from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from brats_folders import save
from test_brats_export import SHAPE, labels_of, made, predict, reference  # noqa: F401

from nnmiss.cli import export_brats
from nnmiss.errors import NnmissError


@pytest.fixture
def subsets(made, tmp_path):  # noqa: F811
    """The two cases of `made` with four subsets; (flags of the command, cases)."""
    for name in ("flair", "t1", "t2", "flair+t1"):
        for case in made[2]:
            predict(tmp_path / "pred" / name, case, labels_of(made[0]))
    for file in tmp_path.glob("pred/BraTS*"):
        file.unlink()
    return ["-i", str(tmp_path / "pred"), "-r", str(tmp_path / "images"), "-o", str(tmp_path / "out"), "--year", "2021",
            "--disable_progress_bar"], made[2]


def test_absent_subsets(subsets, tmp_path, capsys):
    flags, _ = subsets
    assert export_brats.run(flags) == 0
    text = "11 of 15 subsets have no prediction (t1ce, "
    assert f"note: {text}" in capsys.readouterr().out
    assert export_brats.run([*flags, "--overwrite", "--complete"]) == 1
    assert f"error: {text}" in capsys.readouterr().err
    absent = json.loads((tmp_path / "out" / "manifest.json").read_text())["absent_subsets"]
    assert len(absent) == 11 and "flair+t1+t1ce+t2" in absent
    for name in ("t1", "t2", "flair+t1"):
        shutil.rmtree(tmp_path / "pred" / name)
    assert export_brats.run([*flags, "--overwrite", "--complete"]) == 0, "one subset alone is what was asked for"


def test_training_cases_are_not_demanded(subsets, made, tmp_path, capsys):  # noqa: F811
    flags, _ = subsets
    labelled = reference(tmp_path / "images", made[0], "BraTS2021_77777")
    save(labelled.with_name("BraTS2021_77777_seg.nii.gz"), np.zeros(SHAPE, np.uint8))
    save(tmp_path / "images" / "labelsTr" / "BraTS2021_88888.nii.gz", np.zeros(SHAPE, np.uint8))
    for case in ("BraTS2021_88888", "BraTS20_Training_001"):
        reference(tmp_path / "images" / "imagesTr", made[0], case)
    assert export_brats.run(flags) == 0
    assert "that have an image" not in capsys.readouterr().out
    reference(tmp_path / "images", made[0], "BraTS2021_99999")
    assert export_brats.run([*flags, "--overwrite"]) == 0
    out = capsys.readouterr().out
    assert out.count("that have an image") == 1 and " and 1 more lack 1 case(s)" in out


def test_what_fails_in_every_subset_is_said_once(subsets, tmp_path, capsys):
    flags, cases = subsets
    for case in cases:
        shutil.rmtree(tmp_path / "images" / case)
    save(tmp_path / "images" / "anna_0000.nii.gz", np.ones(SHAPE, np.int16))
    assert export_brats.run(flags) == 1
    err = capsys.readouterr().err
    assert err.count("error: ") == 1 and f"case {', '.join(cases)} (" in err and " and 1 more): no image of it" in err


def test_a_folder_that_fits_no_subset(subsets, tmp_path, capsys):
    flags, cases = subsets
    predict(tmp_path / "pred" / "flair+t9", cases[0], np.zeros(SHAPE, np.uint8))
    assert export_brats.run(flags) == 1
    err = capsys.readouterr().err
    assert "flair+t9 was not used: " in err and "What the errors name is not in the zips." in err and "1 failed" not in err


def test_one_folder_of_a_subset_is_no_prediction_folder(subsets, tmp_path):
    flags, _ = subsets
    with pytest.raises(NnmissError, match=f"single subset: give {tmp_path / 'pred'}"):
        export_brats.run(["-i", str(tmp_path / "pred" / "flair+t1"), *flags[2:]])
