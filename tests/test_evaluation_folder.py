"""nnmiss_evaluate on folders: files written, layouts, regions, labels, empty rules, ignore label, bad input named."""
from __future__ import annotations

import gzip
import json
import sys
from math import isnan, sqrt

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from nnmiss.cli import evaluate as command
from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.evaluate import evaluate_folder
from nnmiss.evaluation.hausdorff import hd95
from nnmiss.evaluation.label_maps import regions_of
from nnmiss.evaluation.scoring import Reference

MODALITIES = ["flair", "t1", "t1ce", "t2"]
DATASET = {
    "channel_names": {str(i): name for i, name in enumerate(MODALITIES)},
    "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3},
    "file_ending": ".nii.gz",
}
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])


def ball(shift=0, shape=(16, 18, 12)):
    """Nested labels 1, 2, 3 around a centre."""
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    radius = np.sqrt(sum((g - n / 2 - shift) ** 2 for g, n in zip(grid, shape)))
    return (radius < 5).astype(np.uint8) + (radius < 4) + (radius < 2.5)


def save(labels, path, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), path)


@pytest.fixture
def folders(tmp_path):
    """Three cases, predicted with two subsets; the prediction of `t2` is shifted by a voxel."""
    for case in ("a", "b", "c"):
        save(ball(), tmp_path / "gt" / f"{case}.nii.gz")
        save(ball(), tmp_path / "pred" / "flair+t1ce" / f"{case}.nii.gz")
        save(ball(1), tmp_path / "pred" / "t2" / f"{case}.nii.gz")
    (tmp_path / "pred" / "dataset.json").write_text(json.dumps(DATASET))
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["nnmiss_evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        command.main()
    return stop.value.code


def value(results, case, subset, region, metric):
    row = results[(results["case"] == case) & (results["subset"] == subset) & (results["region"] == region)
                  & (results["metric"] == metric)]
    assert len(row) == 1
    return row["value"].iloc[0]


def test_command_writes_everything(folders, monkeypatch, capsys):
    out = folders / "out"
    assert run(monkeypatch, "-gt", folders / "gt", "-pred", folders / "pred", "-o", out, "--name", "mine") == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "boxplots.png", "dice_by_count.png", "heatmap.png", "results.csv", "summary.json", "table.md", "table.tex"]
    results = pd.read_csv(out / "results.csv")
    assert list(results.columns) == ["case", "subset", "region", "metric", "value"]
    assert len(results) == 3 * 2 * 3 * 4
    assert list(results["subset"].unique()) == ["t2", "flair+t1ce"]  # order of the table's rows
    assert set(results["metric"]) == {"dice", "hd95", "sensitivity", "specificity"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["method"] == "mine" and summary["conventions"] == Conventions().as_dict()
    entry = summary["subsets"]["t2"]["regions"]["tumor core"]
    assert entry["dice"]["n"] == 3 and entry["n_one_empty"] == 0 and entry["dice"]["std"] == 0
    assert entry["dice"]["mean"] == value(results, "a", "t2", "tumor core", "dice")
    printed = capsys.readouterr().out
    assert "table.md" in printed and "ET" in printed and "Average" in printed


def test_values_are_those_of_the_masks_with_spacing(folders):
    results = evaluate_folder(folders / "gt", folders / "pred", DATASET, folders / "out")
    for region, members in (("whole tumor", (1, 2, 3)), ("enhancing tumor", (3,))):
        gt, pred = np.isin(ball(), members), np.isin(ball(1), members)
        assert value(results, "a", "t2", region, "dice") == 2 * (gt & pred).sum() / (gt.sum() + pred.sum())
        assert value(results, "a", "t2", region, "hd95") == pytest.approx(hd95(gt, pred, (1, 1, 2)))
        assert value(results, "a", "t2", region, "sensitivity") == (gt & pred).sum() / gt.sum()
        assert value(results, "a", "t2", region, "specificity") == (~gt & ~pred).sum() / (~gt).sum()
    assert value(results, "a", "flair+t1ce", "whole tumor", "dice") == 1


def test_voxels_instead_of_millimetres_and_the_other_definition(folders):
    gt, pred = ball() > 0, ball(1) > 0
    for conventions, spacing in ((Conventions(hd95_unit="voxels"), (1, 1, 1)), (Conventions("brats2023"), (1, 1, 2))):
        results = evaluate_folder(folders / "gt", folders / "pred", DATASET, folders / "out", conventions)
        expected = hd95(gt, pred, spacing, conventions.hd95)
        assert value(results, "a", "t2", "whole tumor", "hd95") == pytest.approx(expected)


def test_labels_are_evaluated_one_by_one_where_there_are_no_regions(folders):
    dataset = {**DATASET, "labels": {"background": 0, "edema": 1, "necrosis": 2, "enhancing": 3}}
    results = evaluate_folder(folders / "gt", folders / "pred", dataset, folders / "out", Conventions(hd95="none"))
    assert list(results["region"].unique()) == ["edema", "necrosis", "enhancing"]
    assert "hd95" not in set(results["metric"]) and "HD95" not in (folders / "out" / "table.md").read_text()
    gt, pred = ball() == 1, ball(1) == 1
    assert value(results, "a", "t2", "edema", "dice") == 2 * (gt & pred).sum() / (gt.sum() + pred.sum())


def test_processes_give_the_same_results(folders):
    one = evaluate_folder(folders / "gt", folders / "pred", DATASET, folders / "one")
    two = evaluate_folder(folders / "gt", folders / "pred", DATASET, folders / "two", num_processes=2)
    pd.testing.assert_frame_equal(one, two)
    assert (folders / "one" / "table.md").read_text() == (folders / "two" / "table.md").read_text()


def test_flat_folder_takes_subsets_from_the_records_of_the_cases(folders):
    flat = folders / "flat"
    for case in ("a", "b"):
        save(ball(), flat / f"{case}.nii.gz")
    (flat / "a.json").write_text(json.dumps({"modalities_used": ["t1", "t2"]}))
    results = evaluate_folder(folders / "gt", flat, DATASET, folders / "out")
    assert dict(zip(results["case"], results["subset"])) == {"a": "t1+t2", "b": "flair+t1+t1ce+t2"}
    notes = "\n".join(results.attrs["notes"])
    assert "no CASE.json" in notes and "1 of 3 ground truth cases have no prediction" in notes
    (flat / "a.json").write_text(json.dumps({"modalities_used": ["t7"]}))
    results = evaluate_folder(folders / "gt", flat, DATASET, folders / "out")
    (error,) = results.attrs["errors"]
    assert set(results["case"]) == {"b"} and "case a" in error and "t7" in error


def test_subset_with_fewer_cases_is_reported_with_its_n(folders):
    (folders / "pred" / "t2" / "b.nii.gz").unlink()
    results = evaluate_folder(folders / "gt", folders / "pred", DATASET, folders / "out")
    assert not results.attrs["errors"] and "t2 2" in results.attrs["notes"][0]
    rows = [line for line in (folders / "out" / "table.md").read_text().splitlines() if line.startswith(("| ●", "| ○"))]
    assert rows[0].endswith("| 2 |") and rows[1].endswith("| 3 |")


@pytest.mark.parametrize("rule", ["brats", "nan"])
def test_empty_regions(folders, rule):
    without = np.minimum(ball(), 2)  # no enhancing tumour
    save(without, folders / "gt" / "a.nii.gz")
    save(without, folders / "pred" / "t2" / "a.nii.gz")
    save(without, folders / "pred" / "t2" / "b.nii.gz")
    results = evaluate_folder(folders / "gt", folders / "pred", DATASET, folders / "out", Conventions(empty=rule))
    got = {key: [value(results, *key, "enhancing tumor", m) for m in ("dice", "hd95", "sensitivity")]
           for key in (("a", "t2"), ("b", "t2"), ("a", "flair+t1ce"))}
    diagonal = sqrt(16**2 + 18**2 + 24**2)  # 16 x 18 x 12 voxels of 1 x 1 x 2 mm
    if rule == "brats":
        assert got[("a", "t2")] == [1, 0, 1]
        assert got[("b", "t2")] == got[("a", "flair+t1ce")] == [0, pytest.approx(diagonal), 0]
    else:
        assert all(map(isnan, got[("a", "t2")]))
        assert got[("b", "t2")][0] == got[("b", "t2")][2] == 0 and isnan(got[("b", "t2")][1])
        assert got[("a", "flair+t1ce")][0] == 0 and isnan(got[("a", "flair+t1ce")][2])
    summary = json.loads((folders / "out" / "summary.json").read_text())  # strict JSON: no NaN
    entry = summary["subsets"]["t2"]["regions"]["enhancing tumor"]
    assert entry["n_one_empty"] == 1 and entry["hd95"]["n"] == (3 if rule == "brats" else 1)
    assert ("image diagonal, as exactly one" in "\n".join(summary["notes"])) == (rule == "brats")


def test_ignored_voxels_do_not_count(folders):
    dataset = {**DATASET, "labels": {"background": 0, "tumor": [1, 2, 3], "ignore": 4}}
    gt, pred = ball(), ball(1)
    gt[8:] = 4
    save(gt, folders / "gt" / "a.nii.gz")
    results = evaluate_folder(folders / "gt", folders / "pred", dataset, folders / "out")
    a, b = (gt > 0)[:8], (pred > 0)[:8]
    assert list(results["region"].unique()) == ["tumor"]
    assert value(results, "a", "t2", "tumor", "dice") == 2 * (a & b).sum() / (a.sum() + b.sum())
    assert value(results, "a", "t2", "tumor", "specificity") == (~a & ~b).sum() / (~a).sum()
    blank = np.zeros_like(gt, bool)
    blank[:8] = True
    expected = hd95((gt > 0) & blank, (pred > 0) & blank, (1, 1, 2))
    assert value(results, "a", "t2", "tumor", "hd95") == pytest.approx(expected)


def test_2d_images_of_another_format(tmp_path):
    from skimage import io  # the library nnU-Net reads these with

    dataset = {**DATASET, "labels": {"background": 0, "thing": 1}, "file_ending": ".png"}
    gt, pred = np.zeros((2, 20, 30), np.uint8)
    gt[5:15, 5:15], pred[5:15, 7:17] = 1, 1
    for folder, image in ((tmp_path / "gt", gt), (tmp_path / "pred" / "t1", pred)):
        folder.mkdir(parents=True)
        io.imsave(folder / "x.png", image, check_contrast=False)
    results = evaluate_folder(tmp_path / "gt", tmp_path / "pred", dataset, tmp_path / "out")
    assert value(results, "x", "t1", "thing", "dice") == pytest.approx(0.8)
    assert value(results, "x", "t1", "thing", "hd95") == hd95(gt, pred)


def spoil(folders, what):
    """Damages one file of case a; returns what the error must name."""
    path = folders / "pred" / "t2" / "a.nii.gz"
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif what == "truncated data":
        whole = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(whole[: len(whole) // 2]))
    elif what == "not an image":
        path.write_text("hello")
    elif what == "shape":
        save(ball(shape=(16, 18, 11)), path)
        return r"shape (16, 18, 11) differs from the ground truth's (16, 18, 12)"
    elif what == "affine":
        shifted = AFFINE.copy()
        shifted[0, 3] = 1.0
        save(ball(), path, shifted)
        return "affines differ"
    elif what == "unknown label":
        save(np.where(ball() == 3, 4, ball()).astype(np.uint8), path)
        return "unknown labels [4]"
    elif what == "negative label":
        save(ball().astype(np.int16) - 1, path)
        return "unknown labels [-1]"
    elif what == "probabilities":
        save(ball().astype(np.float32) / 3, path)
        return "not whole numbers"
    return str(path)


@pytest.mark.parametrize("what", ["truncated", "truncated data", "not an image", "shape", "affine", "unknown label",
                                  "negative label", "probabilities"])
def test_a_bad_prediction_is_named_and_the_others_finish(folders, monkeypatch, capsys, what):
    named = spoil(folders, what)
    assert run(monkeypatch, "-gt", folders / "gt", "-pred", folders / "pred", "-o", folders / "out") == 1
    complaint = capsys.readouterr().err
    assert named in complaint and "case a, subset t2" in complaint and "Traceback" not in complaint
    results = pd.read_csv(folders / "out" / "results.csv")
    assert len(results) == (3 * 2 - 1) * 3 * 4
    assert named in "".join(json.loads((folders / "out" / "summary.json").read_text())["errors"])


def test_bad_ground_truth_and_absent_ground_truth_are_named(folders, monkeypatch, capsys):
    (folders / "gt" / "a.nii.gz").write_bytes(b"")
    (folders / "gt" / "b.nii.gz").unlink()
    assert run(monkeypatch, "-gt", folders / "gt", "-pred", folders / "pred", "-o", folders / "out") == 1
    complaint = capsys.readouterr().err
    assert "case b: no ground truth" in complaint and "case a, ground truth" in complaint
    assert set(pd.read_csv(folders / "out" / "results.csv")["case"]) == {"c"}


def test_float_and_tiny_affine_differences_are_accepted(folders):
    save(ball().astype(np.float32), folders / "pred" / "t2" / "a.nii.gz", AFFINE + 1e-6)
    assert not evaluate_folder(folders / "gt", folders / "pred", DATASET, folders / "out").attrs["errors"]


def without_codes(image):
    image.header["qform_code"] = image.header["sform_code"] = 0
    return image


def with_another_sform(image):
    image.set_qform(image.affine, 1)
    moved = image.affine.copy()
    moved[:3, 3] += 17
    image.set_sform(moved, 4)
    return image


def moved_a_little(image):
    moved = image.affine.copy()
    moved[0, 3] += 0.05 * abs(moved[0, 0])
    return nib.Nifti1Image(np.asanyarray(image.dataobj), moved)


@pytest.mark.parametrize("header", [without_codes, with_another_sform, moved_a_little])
def test_headers_that_can_be_trained_on_can_be_evaluated(folders, header):
    """Predictions are written by SimpleITK with the geometry it read from the case; nibabel may read another."""
    for truth in (folders / "gt").glob("*.nii.gz"):
        nib.save(header(nib.load(truth)), folders / truth.name)
        (folders / truth.name).replace(truth)
        for prediction in (folders / "pred").rglob(truth.name):
            image = sitk.GetImageFromArray(np.asanyarray(nib.load(prediction).dataobj).T)
            image.CopyInformation(sitk.ReadImage(truth))
            sitk.WriteImage(image, prediction)
    assert evaluate_folder(folders / "gt", folders / "pred", DATASET, folders / "out").attrs["errors"] == []


def test_folders_that_are_no_subsets(folders, tmp_path):
    save(ball(), folders / "pred" / "uncertainty" / "a.nii.gz")
    save(ball(), folders / "pred" / "flair+t1c" / "a.nii.gz")
    save(ball(), folders / "pred" / "other" / "a.nii.gz")
    (folders / "pred" / "logs").mkdir()
    results = evaluate_folder(folders / "gt", folders / "pred", DATASET, folders / "out")
    assert len(results.attrs["errors"]) == 1 and "t1c" in results.attrs["errors"][0]  # a misspelt subset
    assert len(results.attrs["notes"]) == 1 and "other" in results.attrs["notes"][0]  # uncertainty is our own


@pytest.mark.parametrize("break_it, message", [
    (lambda f: save(ball(), f / "pred" / "a.nii.gz"), "move one of them elsewhere"),
    (lambda f: save(ball(), f / "pred" / "T1CE+flair" / "a.nii.gz"), "both hold subset"),
    (lambda f: [p.unlink() for p in (f / "pred").glob("*/*")], "no *.nii.gz found"),
    (lambda f: [p.unlink() for p in (f / "gt").glob("*")], "no ground truth"),
    (lambda f: (f / "pred" / "dataset.json").write_text("{"), "not valid JSON"),
    (lambda f: (f / "pred" / "dataset.json").unlink(), "-d"),
])
def test_what_cannot_be_evaluated_at_all_is_refused(folders, monkeypatch, capsys, break_it, message):
    break_it(folders)
    assert run(monkeypatch, "-gt", folders / "gt", "-pred", folders / "pred", "-o", folders / "out") == 1
    assert message in capsys.readouterr().err
    assert not (folders / "out" / "results.csv").exists()


@pytest.mark.parametrize("labels, message", [
    (None, "labels"), ({"background": 0}, "no foreground"), ({"background": 0, "x": [0, 1]}, "background"),
    ({"background": 0, "x": "one"}, "integers"),
])
def test_unusable_labels_of_the_data_set_are_refused(folders, labels, message):
    with pytest.raises(NnmissError, match=message):
        evaluate_folder(folders / "gt", folders / "pred", {**DATASET, "labels": labels}, folders / "out")


def test_dataset_is_found_by_id_and_name_in_raw_then_preprocessed(folders, monkeypatch):
    raw, preprocessed = folders / "raw", folders / "preprocessed"
    for root in (raw, preprocessed):
        (root / "Dataset301_X").mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{root.name}", str(root))
    monkeypatch.delenv("nnUNet_results", raising=False)
    (preprocessed / "Dataset301_X" / "dataset.json").write_text(json.dumps(DATASET))
    assert command.dataset_json_of("301", "unused") == command.dataset_json_of("Dataset301_X", "unused") == DATASET
    (raw / "Dataset301_X" / "dataset.json").write_text(json.dumps({**DATASET, "labels": {}}))
    assert command.dataset_json_of("301", "unused")["labels"] == {}
    for unknown in ("302", "Dataset302_Y", "tumours"):
        with pytest.raises(NnmissError, match=unknown):
            command.dataset_json_of(unknown, "unused")


def test_without_a_data_set_the_folder_of_predictions_must_be_there_and_be_the_whole_one(folders):
    pred = folders / "pred"
    with pytest.raises(NnmissError, match=r"prediction folder .*none does not exist: give the folder that nnmiss_predict"):
        command.dataset_json_of(None, pred / "none")
    with pytest.raises(NnmissError, match=r"prediction folder .*dataset\.json is a file"):
        command.dataset_json_of(None, pred / "dataset.json")
    with pytest.raises(NnmissError, match=f"one in the folder above, as if t2 held a single subset: give {pred}, or"):
        command.dataset_json_of(None, pred / "t2")
    with pytest.raises(NnmissError, match=r"dataset\.json not found: name the data set with -d"):
        command.dataset_json_of(None, folders / "gt")


@pytest.mark.parametrize("count, has, errors", [
    (1, "1 prediction has no CASE.json", "1 error: what it names is not in the results"),
    (2, "2 predictions have no CASE.json", "2 errors: what they name is not in the results")])
def test_one_is_no_plural(folders, monkeypatch, capsys, count, has, errors):
    flat = folders / "flat"
    for case in "ab"[:count]:
        save(ball(), flat / f"{case}.nii.gz")
        save(ball(), flat / f"unknown_{case}.nii.gz")
        (flat / f"unknown_{case}.json").write_text('{"modalities_used": ["t2"]}')
    (flat / "dataset.json").write_text(json.dumps(DATASET))
    assert run(monkeypatch, "-gt", folders / "gt", "-pred", flat, "-o", folders / "out") == 1
    out = capsys.readouterr()
    assert f"note: {has}" in out.out and errors in out.err


def test_compare_writes_ranks_tests_and_conventions_must_agree(folders, monkeypatch, capsys):
    arguments = ["-gt", folders / "gt", "-pred", folders / "pred"]
    for case, shift in (("a", 0), ("b", 2), ("c", 1)):
        save(ball(shift), folders / "other" / "t2" / f"{case}.nii.gz")
        save(ball(2), folders / "other" / "flair+t1ce" / f"{case}.nii.gz")
    (folders / "other" / "dataset.json").write_text(json.dumps(DATASET))
    assert run(monkeypatch, "-gt", folders / "gt", "-pred", folders / "other") == 0
    out = folders / "out"
    assert run(monkeypatch, *arguments, "-o", out, "--compare", folders / "other", f"again={folders / 'other'}") == 0
    text = (out / "table.md").read_text()
    assert "ET other | ET again | ET pred | ET Imprv" in text and "p-value (n = 2)" in text and "Wilcoxon" in text
    assert len(json.loads((out / "summary.json").read_text())["comparison"]) == 2 * 3 * 2
    capsys.readouterr()
    assert run(monkeypatch, *arguments, "-o", out, "--compare", folders / "other", "--empty", "nan") == 1
    assert "other conventions" in capsys.readouterr().err


def test_convention_that_does_not_exist_is_refused():
    for bad in ({"hd95": "brats2019"}, {"empty": "zero"}, {"percentile": 101}, {"et_threshold": 0},
                {"et_threshold": 1.5}, {"et_replace": "edema"}, {"lesionwise": "2020"}, {"lesionwise": "2023-RT"}):
        with pytest.raises(NnmissError):
            Conventions(**bad)
    asked = Conventions("brats2023", "nan", et_threshold=500, et_replace="ncr", lesionwise="2024")
    assert Conventions.from_dict(asked.as_dict()) == asked and asked.lesionwise == "2024-GLI"
    assert Conventions.from_dict({"hd95": "brats2020", "et_threshold": None}) == Conventions()  # of an earlier version


@pytest.mark.parametrize("modalities, subsets", [(["a", "b"], ["a"]), ([f"m{i}" for i in range(8)], ["m0", "m0+m7"])])
def test_any_number_of_modalities_and_few_subsets(tmp_path, modalities, subsets):
    dataset = {**DATASET, "channel_names": {str(i): m for i, m in enumerate(modalities)}}
    save(ball(), tmp_path / "gt" / "x.nii.gz")
    for subset in subsets:
        save(ball(1), tmp_path / "pred" / subset / "x.nii.gz")
    results = evaluate_folder(tmp_path / "gt", tmp_path / "pred", dataset, tmp_path / "out")
    assert list(results["subset"].unique()) == subsets
    for figure in ("heatmap.png", "dice_by_count.png", "boxplots.png"):
        assert (tmp_path / "out" / figure).stat().st_size > 5000


def test_arrays_are_scored_without_files():
    regions = regions_of(DATASET)
    reference = Reference(ball(), (1, 1, 2), regions)
    scores, one_empty = reference.score(np.where(ball(1) == 3, 2, ball(1)))
    assert one_empty == ["enhancing tumor"] and scores["enhancing tumor"]["hd95"] == reference.diagonal
    assert scores["whole tumor"]["hd95"] == pytest.approx(hd95(ball() > 0, ball(1) > 0, (1, 1, 2)))
    with pytest.raises(NnmissError, match="shape"):
        reference.score(ball()[1:])
    with pytest.raises(NnmissError, match="float"):
        reference.score(ball().astype(float))


@pytest.fixture
def little_enhancing(folders):
    """As `folders`, but case a has no enhancing tumour, and its prediction of `t2` 5 voxels of it."""
    without, few = ball(), ball(1)
    without[without == 3] = 2
    enhancing = np.flatnonzero(few == 3)
    few.reshape(-1)[enhancing[5:]] = 2
    save(without, folders / "gt" / "a.nii.gz")
    save(few, folders / "pred" / "t2" / "a.nii.gz")
    return folders


def test_small_enhancing_tumours_are_suppressed_in_a_column_of_their_own(little_enhancing):
    folders, et, suppressed = little_enhancing, "enhancing tumor", "enhancing tumor_suppressed"
    arguments = folders / "gt", folders / "pred", DATASET
    plain = evaluate_folder(*arguments, folders / "plain")
    results = evaluate_folder(*arguments, folders / "out", Conventions(et_threshold=6, lesionwise="2023-MET"))
    assert value(results, "a", "t2", et, "dice") == value(plain, "a", "t2", et, "dice") == 0
    assert value(results, "a", "t2", suppressed, "dice") == 1 and value(results, "a", "t2", suppressed, "hd95") == 0
    assert value(results, "a", "t2", suppressed, "lesion_dice") == 1 and value(results, "a", "t2", et, "lesion_fp") > 0
    for case, subset in (("b", "t2"), ("c", "flair+t1ce"), ("a", "flair+t1ce")):
        for metric in ("dice", "hd95", "specificity", "lesion_dice"):
            assert value(results, case, subset, suppressed, metric) == value(results, case, subset, et, metric)
    same = plain.merge(results, on=["case", "subset", "region", "metric"])
    assert len(same) == len(plain) and same["value_x"].equals(same["value_y"])  # the other columns are as they were
    unchanged = evaluate_folder(*arguments, folders / "out", Conventions(et_threshold=5))
    assert value(unchanged, "a", "t2", suppressed, "dice") == 0  # 5 voxels are not fewer than 5
    text = (folders / "out" / "table.md").read_text()
    assert "| ET | ET suppressed | TC | WT |" in text and "fewer than 5 voxels" in text
    summary = json.loads((folders / "out" / "summary.json").read_text())
    assert summary["conventions"]["et_threshold"] == 5 and list(summary["regions"])[-1] == suppressed
    assert summary["subsets"]["t2"]["regions"][et]["n_one_empty"] == 1


def test_suppressed_tumour_becomes_necrosis_where_labels_are_evaluated_one_by_one(little_enhancing):
    folders = little_enhancing
    dataset = {**DATASET, "labels": {"background": 0, "edema": 1, "necrosis": 2, "enhancing": 3}}
    (folders / "pred" / "dataset.json").unlink()

    def columns(replace):
        return evaluate_folder(folders / "gt", folders / "pred", dataset, folders / "out",
                               Conventions(et_threshold=6, et_replace=replace))

    assert list(columns("background")["region"].unique()) == ["edema", "necrosis", "enhancing", "enhancing_suppressed"]
    results = columns("ncr")
    assert list(results["region"].unique()) == ["edema", "necrosis", "necrosis_suppressed", "enhancing",
                                                "enhancing_suppressed"]
    gt, pred = ball() >= 2, ball(1) >= 2
    expected = 2 * (gt & pred).sum() / (gt.sum() + pred.sum())
    assert value(results, "a", "t2", "necrosis_suppressed", "dice") == pytest.approx(expected)
    assert value(results, "a", "t2", "necrosis", "dice") < expected


@pytest.mark.parametrize("arguments, labels, message", [
    (["--et_min_voxels", 500], {"background": 0, "liver": 1, "spleen": 2, "kidney": 3}, "enhancing tumour"),
    (["--et_min_voxels", 500], {"background": 0, "whole tumor": [1, 2, 3], "edema": 1, "core": [2, 3]}, "enhancing tumour"),
    (["--et_min_voxels", 500, "--et_replace", "ncr"], {"background": 0, "lesion": [1, 2, 3], "ET": 3}, "enhancing tumour"),
    (["--lesionwise", "2024"], {"background": 0, "liver": 1, "spleen": 2, "kidney": 3}, "which label is what"),
    (["--et_replace", "ncr"], DATASET["labels"], "--et_min_voxels"),
    (["--et_min_voxels", 0], DATASET["labels"], "--et_min_voxels is 0"),
    (["--lesionwise", "2020"], DATASET["labels"], "BraTS 2020 has no lesion-wise rules, those of 2023 to 2025 have"),
    (["--lesionwise", "2019"], DATASET["labels"], "2023-GLI"),
])
def test_what_a_data_set_cannot_have_is_refused_before_anything_is_computed(folders, monkeypatch, capsys, arguments, labels,
                                                                            message):
    (folders / "pred" / "dataset.json").write_text(json.dumps({**DATASET, "labels": labels}))
    assert run(monkeypatch, "-gt", folders / "gt", "-pred", folders / "pred", "-o", folders / "out", *arguments) == 1
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (folders / "out").exists()


def test_lesion_wise_metrics_have_tables_and_a_comparison_of_the_methods_that_have_them(folders, monkeypatch, capsys):
    arguments = ["-gt", folders / "gt", "-pred", folders / "pred"]
    assert run(monkeypatch, *arguments, "-o", folders / "a", "--lesionwise", "2023-MET", "--name", "a") == 0
    assert run(monkeypatch, *arguments, "-o", folders / "b", "--name", "b") == 0
    assert run(monkeypatch, *arguments, "-o", folders / "out", "--lesionwise", "2023-met", "--et_min_voxels", 3) == 0
    results = pd.read_csv(folders / "out" / "results.csv")
    assert list(results["metric"].unique()) == ["dice", "hd95", "sensitivity", "specificity", "lesion_dice", "lesion_hd95",
                                                "lesion_tp", "lesion_fp", "lesion_fn"]
    assert value(results, "a", "flair+t1ce", "whole tumor", "lesion_dice") == 1  # a perfect prediction
    assert value(results, "a", "t2", "whole tumor", "lesion_dice") == value(results, "a", "t2", "whole tumor", "dice")
    assert value(results, "a", "t2", "whole tumor", "lesion_tp") == 1
    assert run(monkeypatch, *arguments, "-o", folders / "out", "--lesionwise", "2023-MET", "--compare", folders / "a",
               folders / "b") == 0
    text = (folders / "out" / "table.md").read_text()
    assert "b has no lesion-wise Dice: its table leaves it out" in text and "as BraTS 2023 MET" in text
    summary = json.loads((folders / "out" / "summary.json").read_text())
    compared = {(entry["metric"], entry["other"]) for entry in summary["comparison"]}
    assert compared == {("dice", "a"), ("dice", "b"), ("hd95", "a"), ("hd95", "b"), ("lesion_dice", "a"),
                        ("lesion_hd95", "a")}
    latex = (folders / "out" / "table.tex").read_text()
    assert latex.count(r"\begin{table}") == 4 and latex.count("{") == latex.count("}")
    capsys.readouterr()
    assert run(monkeypatch, *arguments, "-o", folders / "out", "--lesionwise", "2024", "--compare", folders / "a") == 1
    assert "lesionwise is 2024-GLI, theirs 2023-MET." in capsys.readouterr().err


def test_summary_names_where_the_values_are_from(folders):
    evaluate_folder(folders / "gt", folders / "pred", DATASET, folders / "out")
    sources = json.loads((folders / "out" / "summary.json").read_text())["sources"]
    assert sources == {"gt": str(folders / "gt"), "pred": str(folders / "pred")}


@pytest.mark.parametrize("theirs, refusal, note", [
    ({"labels": {**DATASET["labels"], "enhancing tumor": 1}}, "enhancing tumor is ['1'] there and ['3'] here", None),
    ({"channel_names": {"0": "flair", "1": "t1", "2": "t1ce", "3": "pd"}}, "flair, t1, t1ce, pd", None),
    ({"channel_names": {"0": "t1", "1": "flair", "2": "t1ce", "3": "t2"}}, None, "in the order t1, flair, t1ce, t2"),
    ({"labels": {"background": 0, "whole tumor": [1, 2, 3], "core": [2, 3]}}, None, "core only there"),
    ({"labels": {**DATASET["labels"], "tumor core": [3, 2]}}, None, None),
    ({"channel_names": None}, None, "cannot be told"),
])
def test_predictions_of_another_data_set_are_told(folders, theirs, refusal, note):
    (folders / "pred" / "dataset.json").write_text(json.dumps({**DATASET, **theirs}))
    arguments = folders / "gt", folders / "pred", DATASET, folders / "out", Conventions(hd95="none")
    if refusal:
        with pytest.raises(NnmissError) as error:
            evaluate_folder(*arguments)
        assert refusal in str(error.value)
        return
    notes = evaluate_folder(*arguments).attrs["notes"]
    assert len(notes) == (note is not None) and (note or "") in "".join(notes)
