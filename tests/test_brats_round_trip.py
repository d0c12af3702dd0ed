"""From a download in the official layout to a submission that the portal's checks accept, for every year and challenge."""
from __future__ import annotations

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from brats_folders import make_brats_folder

from nnmiss.brats_years import CHALLENGES, find_challenge
from nnmiss.cli import convert_dataset
from nnmiss.export.export_folder import export_predictions
from nnmiss.export.validation import validate_submission

SHAPE = (24, 24, 16)  # of the made images; the years' own shape is replaced by it


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("key", [key for key in CHALLENGES if key[0] != 2026], ids=lambda key: "-".join(map(str, key)))
def test_what_was_downloaded_is_submitted(key, ending, tmp_path):
    """convert -> perfect prediction of two subsets -> export -> validate; labels equal the originals voxel by voxel."""
    year, name = key
    challenge = replace(find_challenge(year, name), shape=SHAPE)
    download, out = tmp_path / "download", tmp_path / "out"
    labels = {case: label for case, label in make_brats_folder(download, year, name, shape=SHAPE, ending=ending).items()
              if label is not None}
    flags = ["-i", str(download), "-o", str(tmp_path / "raw"), "-np", "1", "--challenge", name]
    assert convert_dataset.run([f"brats{year}", *flags]) == 0
    (raw,) = (tmp_path / "raw").iterdir()
    subsets = list(dict.fromkeys([challenge.modalities[-1], "+".join(challenge.modalities)]))
    for subset in subsets:
        shutil.copytree(raw / "labelsTr", tmp_path / "pred" / subset)
    dataset_json = json.loads((raw / "dataset.json").read_text())
    manifest = export_predictions(tmp_path / "pred", download, out, challenge, dataset_json)
    assert manifest["failures"] == []
    for subset in subsets:
        for case, label in labels.items():
            assert np.array_equal(np.asanyarray(nib.load(out / subset / f"{case}.nii.gz").dataobj), label)
        for submission in (out / subset, out / f"{subset}.zip"):
            report = validate_submission(submission, challenge, references=download, ids=sorted(labels))
            assert report.findings == [] and sorted(report.cases) == sorted(labels)


@pytest.mark.parametrize(("key", "other"), [((2020, "GLI"), 2023), ((2023, "GLI"), 2021), ((2024, "PED"), 2023)],
                         ids=["2020 as 2023", "2023 as 2021", "2024 PED as 2023"])
def test_labels_of_another_year_are_found_out(key, other, tmp_path):
    """The check would be worthless if it accepted them; all else of the submission is right."""
    challenge = replace(find_challenge(*key), shape=SHAPE)
    labels = make_brats_folder(tmp_path / "download", *key, num_validation=0, shape=SHAPE)
    folder = tmp_path / "submission"
    folder.mkdir()
    for case in labels:
        (source,) = (tmp_path / "download").rglob(f"{case}?seg.nii.gz")
        shutil.copyfile(source, folder / f"{case}.nii.gz")
    assert validate_submission(folder, challenge, references=tmp_path / "download").findings == []
    foreign = replace(challenge, labels=find_challenge(other).labels)
    found = validate_submission(folder, foreign, references=tmp_path / "download").findings
    assert [finding.rule for finding in found] == ["labels"] * len(labels)
