"""Predictions become what a BraTS portal takes: labels, header, names and zips; whatever would be wrong is named."""
from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from brats_folders import AFFINE, case_name, file_name, save

from nnmiss.brats_years import CHALLENGES, Challenge, find_challenge
from nnmiss.cli import export_brats
from nnmiss.errors import NnmissError
from nnmiss.export.enhancing_rule import EnhancingRule
from nnmiss.export.export_folder import ExportOptions, export_predictions

SHAPE = (7, 6, 5)
OBLIQUE = np.array([[-1.2, 0.1, 0, 11.3], [0.1, -0.9, 0.2, -7.7], [0, 0.2, 2.5, 30.1], [0, 0, 0, 1]])


def dataset_of(challenge: Challenge) -> dict:
    """dataset.json of converted data of a challenge."""
    names = challenge.consecutive_labels()
    regions = {region: [names[m] for m in members] for region, members in challenge.regions().items()}
    return {"channel_names": {str(i): m for i, m in enumerate(challenge.modalities)}, "file_ending": ".nii.gz",
            "labels": {"background": 0, **regions}, "regions_class_order": list(names.values()), "numTraining": 1,
            "brats": {"year": challenge.year, "challenge": challenge.name, "label_names": names}}


def reference(folder: Path, challenge: Challenge, case: str, affine: np.ndarray = AFFINE) -> Path:
    """An image of a case in the official layout, whose header is none that a writer would make up."""
    path = folder / case / file_name(challenge, case, challenge.modalities[0])
    save(path, np.ones(SHAPE, np.int16), affine)
    image = nib.load(path)
    voxels = np.asanyarray(image.dataobj)
    header = image.header.copy()
    header.set_xyzt_units("mm", "sec")
    header["descrip"], header["sform_code"], header["cal_max"], header["pixdim"][4] = b"scanner 7", 4, 900, 2.5
    nib.save(nib.Nifti1Image(voxels, None, header), path)
    return path


def predict(folder: Path, case: str, labels: np.ndarray, affine: np.ndarray = AFFINE, used: list | None = None) -> None:
    """A prediction as nnmiss_predict leaves it; nibabel writes another header than the image's."""
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), folder / f"{case}.nii.gz")
    if used:
        record = {"case": case, "modalities_used": used, "model": {"trainer": "T", "folds": [0]}}
        (folder / f"{case}.json").write_text(json.dumps(record))


def labels_of(challenge: Challenge, seed: int = 0) -> np.ndarray:
    """Every label of the challenge in our numbering."""
    return np.random.default_rng(seed).integers(0, len(challenge.labels) + 1, SHAPE).astype(np.uint8)


def voxels(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def raw_header(path: Path) -> nib.Nifti1Header:
    with gzip.open(path) as file:
        return nib.Nifti1Header.from_fileobj(file, check=False)


@pytest.fixture
def made(tmp_path):
    """BraTS 2021: two cases with images, predicted flat; (challenge, dataset.json, cases)."""
    challenge = find_challenge(2021)
    cases = [case_name(challenge, n, False, 0) for n in range(2)]
    for seed, case in enumerate(cases):
        reference(tmp_path / "images", challenge, case)
        predict(tmp_path / "pred", case, labels_of(challenge, seed), used=["flair", "t1"])
    (tmp_path / "pred" / "dataset.json").write_text(json.dumps(dataset_of(challenge)))
    return challenge, dataset_of(challenge), cases


def export(root: Path, challenge: Challenge, dataset_json: dict, **options) -> dict:
    options = ExportOptions(**options)
    return export_predictions(root / "pred", root / "images", root / "out", challenge, dataset_json, options)


def reason(manifest: dict, case: str) -> str:
    return next(failure["reason"] for failure in manifest["failures"] if failure["case"] == case)


@pytest.mark.parametrize("key", CHALLENGES, ids=lambda key: "-".join(map(str, key)))
def test_every_challenge(key, tmp_path):
    challenge = CHALLENGES[key]
    case, ours = case_name(challenge, 3, False, 0), labels_of(challenge)
    image = reference(tmp_path / "images", challenge, case, OBLIQUE)
    subset = "+".join(challenge.modalities[:2])
    predict(tmp_path / "pred" / subset, case, ours, nib.load(image).affine, list(challenge.modalities[:2]))
    manifest = export(tmp_path, challenge, dataset_of(challenge))
    assert not manifest["failures"] and challenge.is_id(case)
    result = tmp_path / "out" / subset / f"{case}.nii.gz"
    names = {value: name for name, value in challenge.consecutive_labels().items()}
    official = [challenge.labels[names[v]] if v else 0 for v in ours.ravel().tolist()]
    assert voxels(result).ravel().tolist() == official
    header, original = raw_header(result), raw_header(image)
    assert (header["datatype"], header["bitpix"], header["scl_slope"], header["scl_inter"]) == (2, 8, 1, 0)
    for field in set(header.keys()) - {"datatype", "bitpix", "scl_slope", "scl_inter", "vox_offset"}:
        assert header[field].tobytes() == original[field].tobytes(), field
    assert sitk.ReadImage(str(result)).GetOrigin() == sitk.ReadImage(str(image)).GetOrigin()
    archive = tmp_path / "out" / f"{subset}.zip"
    with zipfile.ZipFile(archive) as content:
        assert content.namelist() == [f"{case}.nii.gz"] and content.read(f"{case}.nii.gz") == result.read_bytes()
    entry = json.loads((tmp_path / "out" / "manifest.json").read_text())["subsets"][subset]
    assert entry["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest() and entry["n_cases"] == 1
    assert entry["cases"][case]["voxels"] == {n: official.count(v) for n, v in challenge.labels.items()}
    assert entry["cases"][case]["modalities_used"] == list(challenge.modalities[:2])


def test_manifest_of_flat_predictions(made, tmp_path):
    challenge, dataset_json, cases = made
    predict(tmp_path / "pred", cases[1], labels_of(challenge), used=["t2"])
    reference(tmp_path / "images", challenge, "BraTS2021_77777")
    manifest = export(tmp_path, challenge, dataset_json)
    entry = manifest["subsets"]["submission"]
    assert [entry["cases"][c]["modalities_used"] for c in cases] == [["flair", "t1"], ["t2"]]
    assert entry["missing"] == ["BraTS2021_77777"] and manifest["models"] == [{"trainer": "T", "folds": [0]}]
    assert entry["cases"][cases[0]]["source"] == str(tmp_path / "pred" / f"{cases[0]}.nii.gz")
    assert (manifest["year"], manifest["challenge"], manifest["et_rule"]) == (2021, "GLI", None)


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["read by ITK", "sheared: read by nibabel"])
@pytest.mark.parametrize("turn", [((0, -1), (1, 1), (2, 1)), ((2, 1), (0, -1), (1, -1)), ((1, -1), (2, -1), (0, 1))])
def test_turned_axes_are_turned_back_exactly(turn, affine, made, tmp_path):
    challenge, dataset_json, cases = made
    image = nib.load(reference(tmp_path / "images", challenge, cases[0], affine))
    turned = nib.Nifti1Image(labels_of(challenge, 9), image.affine).as_reoriented(np.array(turn))
    predict(tmp_path / "pred", cases[0], np.asanyarray(turned.dataobj), turned.affine)
    manifest = export(tmp_path, challenge, dataset_json)
    assert manifest["subsets"]["submission"]["cases"][cases[0]]["turned"]
    expected = np.array([0, 2, 1, 4])[labels_of(challenge, 9)]
    assert np.array_equal(voxels(tmp_path / "out/submission" / f"{cases[0]}.nii.gz"), expected)


@pytest.mark.parametrize("writer", ["SimpleITK", "nibabel"])
def test_header_with_two_positions_is_not_turned(writer, made, tmp_path):
    """A qform that is the sform flipped: by either reading of it the prediction lies as the image does."""
    challenge, dataset_json, cases = made
    path = reference(tmp_path / "images", challenge, cases[0])
    image = nib.load(path)
    image.set_qform(AFFINE @ np.diag([-1, 1, 1, 1]) + [[0, 0, 0, 1 - SHAPE[0]], *np.zeros((3, 4))], 1)
    nib.save(image, path)
    ours, prediction = labels_of(challenge, 5), tmp_path / "pred" / f"{cases[0]}.nii.gz"
    if writer == "SimpleITK":
        result = sitk.GetImageFromArray(ours.T)
        result.CopyInformation(sitk.ReadImage(str(path)))
        sitk.WriteImage(result, str(prediction))
    else:
        nib.save(nib.Nifti1Image(ours, nib.load(path).affine), prediction)
    assert not export(tmp_path, challenge, dataset_json)["failures"]
    result = tmp_path / "out/submission" / prediction.name
    assert np.array_equal(voxels(result), np.array([0, 2, 1, 4])[ours])
    assert raw_header(result)["qoffset_x"] == raw_header(path)["qoffset_x"]


def shifted(mm: float) -> np.ndarray:
    return AFFINE + [[0, 0, 0, mm], *np.zeros((3, 4))]


@pytest.mark.parametrize("labels, affine, what", [
    (np.zeros((7, 6, 4), np.uint8), AFFINE, r"shapes differ: \(7, 6, 4\) against \(7, 6, 5\)"),
    (np.zeros(SHAPE, np.uint8), shifted(0.5), "0.5 mm apart"),
    (np.zeros(SHAPE, np.uint8), AFFINE @ np.diag([1.1, 1, 1, 1]), r"spacing \(1.1, 1, 1\) against \(1, 1, 1\)"),
    (np.zeros((*SHAPE, 2), np.uint8), AFFINE, "not a three-dimensional image"),
    (np.full(SHAPE, 0.5, np.float32), AFFINE, "not whole numbers"),
    (np.full(SHAPE, 9, np.int16), AFFINE, r"holds \[9\], which dataset.json does not name"),
    (np.full(SHAPE, -1, np.int16), AFFINE, r"holds \[-1\]"),
])
def test_wrong_prediction_is_left_out_and_named(labels, affine, what, made, tmp_path, capsys):
    _, _, cases = made
    predict(tmp_path / "pred", cases[0], labels, affine)
    flags = ["-i", str(tmp_path / "pred"), "-r", str(tmp_path / "images"), "-o", str(tmp_path / "out"), "--year", "2021"]
    assert export_brats.run(flags) == 1
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert len(manifest["failures"]) == 1
    with pytest.raises(NnmissError, match=what):
        raise NnmissError(reason(manifest, cases[0]))
    assert f"case {cases[0]} (submission)" in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "out" / "submission.zip") as content:
        assert content.namelist() == [f"{cases[1]}.nii.gz"]


def test_rounding_of_the_position_is_mended(made, tmp_path):
    challenge, dataset_json, cases = made
    predict(tmp_path / "pred", cases[0], labels_of(challenge), shifted(1e-3))
    assert not export(tmp_path, challenge, dataset_json)["failures"]
    assert np.array_equal(nib.load(tmp_path / "out/submission" / f"{cases[0]}.nii.gz").affine, AFFINE)


def test_a_label_that_the_year_lacks_is_not_lost_silently(made, tmp_path):
    challenge, _, cases = made
    with_cavity = dataset_of(find_challenge(2024))
    predict(tmp_path / "pred", cases[0], np.full(SHAPE, 4, np.uint8))
    manifest = export(tmp_path, challenge, with_cavity)
    assert "lost a label in mapping: 210 voxels are rc (4)" in reason(manifest, cases[0])
    assert list(manifest["subsets"]["submission"]["cases"]) == [cases[1]]
    later = tmp_path / "pred" / "BraTS-GLI-00001-000.nii.gz"
    later.write_bytes((tmp_path / "pred" / f"{cases[1]}.nii.gz").read_bytes())
    reference(tmp_path / "images", find_challenge(2024), "BraTS-GLI-00001-000")
    notes = export(tmp_path, find_challenge(2024), dataset_of(challenge), overwrite=True)["notes"]
    assert any("no label rc" in note for note in notes)


def test_damaged_files_images_and_records_are_named(made, tmp_path):
    challenge, dataset_json, cases = made
    more = [case_name(challenge, n, False, 0) for n in range(2, 6)]
    more.append(case_name(challenge, 6, False, 0))
    for case in (*more[:3], more[4]):
        predict(tmp_path / "pred" / "flair+t1", case, labels_of(challenge), used=["t2"] if case == more[2] else None)
        reference(tmp_path / "images", challenge, case)
    predict(tmp_path / "pred" / "flair+t1", more[3], labels_of(challenge))
    for file in tmp_path.glob("pred/*.nii.gz"):  # not a mix of layouts
        file.rename(tmp_path / "pred" / "flair+t1" / file.name)
    for case, share in ((more[0], 8), (more[4], 0.9)):  # within the header, and within the voxels
        cut = tmp_path / "pred" / "flair+t1" / f"{case}.nii.gz"
        cut.write_bytes(cut.read_bytes()[:int(cut.stat().st_size * share) if share < 1 else share])
    reference(tmp_path / "images", challenge, more[1]).write_bytes(b"\x1f\x8bnot an image")
    manifest = export(tmp_path, challenge, dataset_json, num_threads=3)
    assert sorted(manifest["subsets"]["flair+t1"]["cases"]) == cases
    for case in (more[0], more[4]):
        assert f"{case}.nii.gz" in reason(manifest, case) and "damaged" in reason(manifest, case)
    assert "reference image" in reason(manifest, more[1])
    assert "says that t2 was used" in reason(manifest, more[2])
    assert "no image of it was found" in reason(manifest, more[3])


def test_ids_of_another_form(made, tmp_path):
    _, dataset_json, _ = made
    challenge = find_challenge(2020)
    with pytest.raises(NnmissError, match=r"all 2 .* ids are of BraTS 2021 GLI \(--year 2021\), not"):
        export(tmp_path, challenge, dataset_json)
    assert not (tmp_path / "out").exists(), "nothing exported, nothing written"
    manifest = export(tmp_path, challenge, dataset_json, any_id=True)
    assert manifest["any_id"] and not manifest["failures"] and any("--any_id" in note for note in manifest["notes"])
    predict(tmp_path / "pred", "anna", labels_of(challenge))
    reference(tmp_path / "images", challenge, "anna")
    reason_of_one = reason(export(tmp_path, made[0], dataset_json, overwrite=True), "anna")
    assert "no case id of BraTS 2021 GLI, as BraTS2021_NNNNN (N is a digit)" in reason_of_one


@pytest.mark.parametrize("replace, official", [("ncr", 1), ("background", 0)])
def test_small_enhancing_tumour_is_replaced(replace, official, made, tmp_path):
    challenge, dataset_json, cases = made
    for case, number in zip(cases, (9, 10)):
        labels = np.ones(SHAPE, np.uint8)
        labels.flat[:number] = 3
        predict(tmp_path / "pred", case, labels)
    manifest = export(tmp_path, challenge, dataset_json, et_rule=EnhancingRule(10, replace))
    entries = manifest["subsets"]["submission"]["cases"]
    assert [entries[case]["et_suppressed"] for case in cases] == [True, False]
    assert [entries[case]["voxels"]["et"] for case in cases] == [0, 10]
    flat = voxels(tmp_path / "out/submission" / f"{cases[0]}.nii.gz").ravel()
    assert flat[:9].tolist() == [official] * 9 and set(flat[9:].tolist()) == {2}


def test_enhancing_rule_needs_the_labels(made, tmp_path):
    with pytest.raises(NnmissError, match="has no label et"):
        export(tmp_path, find_challenge(2024, "MEN-RT"), made[1], et_rule=EnhancingRule(10))
    with pytest.raises(NnmissError, match="at least 1 voxel"):
        EnhancingRule(0)


def test_output_is_replaced_only_where_it_is_an_export(made, tmp_path):
    challenge, dataset_json, _ = made
    export(tmp_path, challenge, dataset_json)
    first = (tmp_path / "out" / "submission.zip").read_bytes()
    with pytest.raises(NnmissError, match="not empty"):
        export(tmp_path, challenge, dataset_json)
    export(tmp_path, challenge, dataset_json, overwrite=True)
    assert (tmp_path / "out" / "submission.zip").read_bytes() == first, "the same predictions give the same zip"
    with pytest.raises(NnmissError, match="of BraTS 2021"):
        export(tmp_path, find_challenge(2020), dataset_json, overwrite=True)
    assert (tmp_path / "out" / "submission.zip").read_bytes() == first, "a failed export leaves the earlier one"
    (tmp_path / "pred" / "t1").mkdir()
    for file in tmp_path.glob("pred/*.nii.gz"):
        file.rename(tmp_path / "pred" / "t1" / file.name)
    export(tmp_path, challenge, dataset_json, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json", "t1", "t1.zip"]
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(NnmissError, match="earlier exports only"):
        export(tmp_path, challenge, dataset_json, overwrite=True)


def test_missing_cases_and_the_command_line(made, tmp_path, capsys):
    challenge, _, _ = made
    reference(tmp_path / "images", challenge, "BraTS2021_77777")
    flags = ["-i", str(tmp_path / "pred"), "-r", str(tmp_path / "images"), "-o", str(tmp_path / "out"), "--year", "2021"]
    assert export_brats.run(flags) == 0
    assert "lacks 1 case(s) that have an image (BraTS2021_77777)" in capsys.readouterr().out
    assert export_brats.run([*flags, "--overwrite", "--complete"]) == 1
    for more, message in ((["--uncertainty"], "takes no uncertainty maps"), (["--et_replace", "ncr"], "--et_min_voxels"),
                          (["--challenge", "PED"], "no BraTS challenge"), (["-np", "0"], "at least 1")):
        with pytest.raises(NnmissError, match=message):
            export_brats.run([*flags, "--overwrite", *more])
