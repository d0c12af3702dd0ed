"""Expected calibration error: against a loop over voxels, by hand, on files of every kind, and in tables and figures."""
from __future__ import annotations

import json
import sys
from math import floor, isnan

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnmiss.cli import evaluate as command
from nnmiss.errors import NnmissError
from nnmiss.evaluation.calibration import bin_sums, expected_calibration_error, region_probabilities
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.evaluate import evaluate_folder
from nnmiss.evaluation.label_maps import regions_of
from nnmiss.evaluation.results import Method, check_comparable, results_with

MODALITIES = ["flair", "t1", "t1ce", "t2"]
REGIONS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}
LABELS = {"background": 0, "edema": 1, "necrosis": 2, "enhancing": 3}
SHAPE = (6, 7, 9)  # z, y, x: no two axes are equal
FULL = "flair+t1+t1ce+t2"


def dataset(labels, **more):
    return {"channel_names": {str(i): name for i, name in enumerate(MODALITIES)}, "labels": labels,
            "file_ending": ".nii.gz", **more}


def manager(labels):
    names = [name for name in labels if name not in ("background", "ignore")]
    return LabelManager(labels, list(range(1, len(names) + 1)))


def random_case(labels, seed=0, shape=SHAPE):
    """Ground truth (z, y, x), probabilities as the network's nonlinearity makes them, and nnU-Net's segmentation."""
    rng, handler = np.random.default_rng(seed), manager(labels)
    gt = rng.integers(0, 4, shape).astype(np.uint8) * (rng.random(shape) < 0.5)
    logits = rng.normal(size=(handler.num_segmentation_heads, *shape)).astype(np.float32) - 0.5
    probabilities = handler.apply_inference_nonlin(logits).numpy()
    return gt, probabilities, np.asarray(handler.convert_probabilities_to_segmentation(probabilities))


def write(array, path):
    """(z, y, x) labels as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.T.astype(np.uint8), np.diag([-1.0, -1.0, 2.0, 1.0])), path)


def write_case(folder, case, labels, subset="", **options):
    """A ground truth with a prediction and its probabilities; returns the arrays."""
    gt, probabilities, segmentation = arrays = random_case(labels, **options)
    write(gt, folder / "gt" / f"{case}.nii.gz")
    write(segmentation, folder / "pred" / subset / f"{case}.nii.gz")
    np.savez_compressed(folder / "pred" / subset / f"{case}.npz", probabilities=probabilities)
    return arrays


def ece_of(results, case="a", subset=FULL):
    chosen = results[(results["metric"] == "ece") & (results["case"] == case) & (results["subset"] == subset)]
    return dict(zip(chosen["region"], chosen["value"]))


def slow_ece(gt, probabilities, segmentation, labels, region, bins=15, ignore=None):
    """Voxel by voxel, from the definition."""
    value = labels[region]
    members = value if isinstance(value, list) else [value]
    softmax = not any(isinstance(v, list) for v in labels.values())
    regions = [name for name in labels if name not in ("background", "ignore")]
    n, sum_confidence, sum_correct = [0] * bins, [0.0] * bins, [0] * bins
    for place in np.ndindex(*gt.shape):
        if gt[place] == ignore or (gt[place] == 0 and segmentation[place] == 0):
            continue
        p = probabilities[(regions.index(region), *place)] if not softmax else sum(
            float(probabilities[(m, *place)]) for m in members)
        p = float(p)
        confidence = max(p, 1 - p)
        exact = (confidence - 0.5) / (0.5 / bins)
        index = floor(exact) if exact != floor(exact) else max(0, int(exact) - 1)
        n[index] += 1
        sum_confidence[index] += confidence
        sum_correct[index] += (p > 0.5) == (gt[place] in members)
    return sum(n[m] / sum(n) * abs(sum_correct[m] / n[m] - sum_confidence[m] / n[m]) for m in range(bins) if n[m])


def test_by_hand():
    p = np.array([0.9, 0.8, 0.3, 0.6])  # confidences 0.9, 0.8, 0.7, 0.6; correct: yes, no, yes, yes
    sums = bin_sums(p, np.array([True, False, False, True]), 2)  # bins (0.5, 0.75] and (0.75, 1]
    np.testing.assert_allclose(sums, [[2, 2], [1.3, 1.7], [2, 1]])
    assert expected_calibration_error(sums) == pytest.approx((2 * (1 - 0.65) + 2 * abs(0.5 - 0.85)) / 4)
    assert isnan(expected_calibration_error(bin_sums(np.zeros(0), np.zeros(0, bool), 2)))


def test_a_bin_has_its_upper_edge_and_the_first_also_its_lower():
    edges = np.linspace(0.5, 1, 5)  # exact in binary
    assert bin_sums(edges, np.ones(5, bool), 4)[0].tolist() == [2, 1, 1, 1]
    assert bin_sums(1 - edges, np.ones(5, bool), 4)[0].tolist() == [2, 1, 1, 1]
    assert bin_sums(np.array([0.5]), np.array([False]), 4)[2].sum() == 1  # 0.5 is not predicted to be inside
    assert bin_sums(np.array([1.0001, -1e-4]), np.array([True, False]), 4)[:2, 3].tolist() == [2, 2]  # rounding


def test_calibrated_is_zero_and_overconfident_is_by_how_much():
    rng = np.random.default_rng(1)
    p = rng.random(400_000)
    inside = rng.random(len(p)) < p
    assert expected_calibration_error(bin_sums(p, inside, 15)) < 0.003
    sure = np.where(p > 0.5, 0.99, 0.01)  # right in 3 of 4, as the mean of max(p, 1 - p) is 0.75
    assert expected_calibration_error(bin_sums(sure, inside, 15)) == pytest.approx(0.24, abs=0.003)


@pytest.mark.parametrize("labels", [REGIONS, LABELS, {"background": 0, "rest": [1, 3], "necrosis": [2]},
                                    {"enhancing": 3, "background": 0, "necrosis": 2, "edema": 1}])
@pytest.mark.parametrize("bins", [15, 4])
def test_files_are_scored_as_a_loop_over_voxels_does(tmp_path, labels, bins):
    arrays = random_case(labels)
    write_case(tmp_path, "a", labels)
    results = evaluate_folder(tmp_path / "gt", tmp_path / "pred", dataset(labels), tmp_path / "out",
                              Conventions(ece_bins=bins))
    expected = {name: slow_ece(*arrays, labels, name, bins) for name in labels if name != "background"}
    assert ece_of(results) == pytest.approx(expected) and min(expected.values()) > 0.01
    assert not any("probabilities" in note for note in results.attrs["notes"])


def test_channels_are_those_of_nnunets_label_manager():
    for labels in ({"core": [2, 3], "background": 0, "all": [3, 1, 2], "ignore": 4, "x": 1},
                   {"b": 3, "background": 0, "a": 1, "c": 2, "ignore": 4}):
        handler = manager(labels)
        channels = handler.foreground_regions if handler.has_regions else handler.all_labels
        marked = np.arange(handler.num_segmentation_heads, dtype=float)[:, None]  # each channel holds its own number
        got = region_probabilities(marked, regions_of(dataset(labels)))
        assert list(got) == [name for name in labels if name not in ("background", "ignore")]
        for name, row in got.items():
            value = tuple(labels[name]) if isinstance(labels[name], list) else labels[name]
            assert channels[int(row[0])] == value


def test_ignored_voxels_do_not_count(tmp_path):
    labels = {**REGIONS, "ignore": 4}
    gt, probabilities, segmentation = write_case(tmp_path, "a", labels)
    gt[:3] = 4
    write(gt, tmp_path / "gt" / "a.nii.gz")
    results = evaluate_folder(tmp_path / "gt", tmp_path / "pred", dataset(labels), tmp_path / "out")
    expected = slow_ece(gt, probabilities, segmentation, labels, "tumor core", ignore=4)
    assert ece_of(results)["tumor core"] == pytest.approx(expected)


def test_a_case_without_foreground_is_undefined_and_left_out(tmp_path):
    write_case(tmp_path, "a", REGIONS)
    write(np.zeros(SHAPE), tmp_path / "gt" / "b.nii.gz")
    write(np.zeros(SHAPE), tmp_path / "pred" / "b.nii.gz")
    np.savez(tmp_path / "pred" / "b.npz", probabilities=np.zeros((3, *SHAPE), np.float16))
    results = evaluate_folder(tmp_path / "gt", tmp_path / "pred", dataset(REGIONS), tmp_path / "out")
    assert all(map(isnan, ece_of(results, "b").values())) and len(ece_of(results, "b")) == 3
    entry = json.loads((tmp_path / "out" / "summary.json").read_text())["subsets"][FULL]["regions"]["tumor core"]["ece"]
    assert entry["n"] == 1 and entry["mean"] == ece_of(results, "a")["tumor core"]


def test_one_slice_and_processes(tmp_path):
    """Axes of length 1 are dropped from label maps but not from probabilities; spawned processes give the same."""
    arrays = {}
    for seed, case in enumerate("abc"):
        arrays[case] = write_case(tmp_path, case, LABELS, seed=seed, shape=(1, 7, 9))
    one, two = (evaluate_folder(tmp_path / "gt", tmp_path / "pred", dataset(LABELS), tmp_path / str(n), num_processes=n)
                for n in (1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert (tmp_path / "1/calibration.csv").read_bytes() == (tmp_path / "2/calibration.csv").read_bytes()
    for case in arrays:
        assert ece_of(one, case)["edema"] == pytest.approx(slow_ece(*arrays[case], LABELS, "edema"))


def test_probabilities_of_a_reader_that_reorients(tmp_path):
    """nnU-Net turns these segmentations back to the file's axes, its probabilities stay in RAS."""
    gt, probabilities, segmentation = random_case(REGIONS)
    affine = np.array([[0, -1.0, 0, 5], [0, 0, 1.5, 3], [2.0, 0, 0, 1], [0, 0, 0, 1]])  # files with the axes S, L, A
    for folder in ("gt", "pred"):
        (tmp_path / folder).mkdir()
    template = tmp_path / "template.nii.gz"
    size = np.array(SHAPE)[::-1]  # R, A, S
    nib.save(nib.Nifti1Image(np.zeros((size[2], size[0], size[1]), np.uint8), affine), template)
    reader = NibabelIOWithReorient()
    image, properties = reader.read_images((str(template),))
    assert image.shape[1:] == SHAPE
    reader.write_seg(gt, str(tmp_path / "gt" / "a.nii.gz"), properties)
    reader.write_seg(segmentation, str(tmp_path / "pred" / "a.nii.gz"), properties)
    np.savez(tmp_path / "pred" / "a.npz", probabilities=probabilities)
    results = evaluate_folder(tmp_path / "gt", tmp_path / "pred",
                              dataset(REGIONS, overwrite_image_reader_writer="NibabelIOWithReorient"), tmp_path / "out")
    assert ece_of(results)["tumor core"] == pytest.approx(
        slow_ece(gt, probabilities, segmentation, REGIONS, "tumor core"))


@pytest.fixture
def folders(tmp_path):
    """Three cases with two subsets, all with probabilities."""
    for seed, case in enumerate("abc"):
        write_case(tmp_path, case, REGIONS, "t2", seed=seed)
        write_case(tmp_path, case, REGIONS, "flair+t1ce", seed=seed)
    (tmp_path / "pred" / "dataset.json").write_text(json.dumps(dataset(REGIONS)))
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["nnmiss_evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        command.main()
    return stop.value.code


def test_everything_is_written(folders, monkeypatch, capsys):
    out = folders / "out"
    assert run(monkeypatch, "-gt", folders / "gt", "-pred", folders / "pred", "-o", out, "--ece_bins", 10) == 0
    assert "reliability.png" in capsys.readouterr().out and (out / "reliability.png").stat().st_size > 5000
    results = pd.read_csv(out / "results.csv")
    assert list(results["metric"].unique()) == ["dice", "hd95", "sensitivity", "specificity", "ece"]
    table = pd.read_csv(out / "calibration.csv")
    assert list(table.columns) == ["subset", "region", "bin", "n", "mean_confidence", "accuracy"]
    assert len(table) == 2 * 3 * 10 and list(table["bin"][:10]) == list(range(1, 11))
    union = sum(int(((gt > 0) | (segmentation > 0)).sum()) for gt, _, segmentation in (
        random_case(REGIONS, seed) for seed in range(3)))
    assert set(table.groupby(["subset", "region"])["n"].sum()) == {union}
    filled = table[table["n"] > 0]
    assert ((filled["mean_confidence"] > 0.5 + 0.05 * (filled["bin"] - 1)) &
            (filled["mean_confidence"] <= 0.5 + 0.05 * filled["bin"])).all()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["conventions"]["ece_bins"] == 10 and summary["subsets"]["t2"]["regions"]["tumor core"]["ece"]["n"] == 3
    assert summary["mean_over_subsets"]["tumor core"]["ece"] == pytest.approx(
        results[(results["metric"] == "ece") & (results["region"] == "tumor core")]["value"].mean())
    for text in ((out / "table.md").read_text(), (out / "table.tex").read_text()):
        assert "lower is better) of pred" in text and "10 equal bins" in text


def test_without_probabilities_nothing_changes_and_old_files_go(folders):
    evaluate_folder(folders / "gt", folders / "pred", dataset(REGIONS), folders / "out")
    for path in (folders / "pred").glob("*/*.npz"):
        path.unlink()
    results = evaluate_folder(folders / "gt", folders / "pred", dataset(REGIONS), folders / "out")
    names = {p.name for p in (folders / "out").iterdir()}
    assert names == {"boxplots.png", "dice_by_count.png", "heatmap.png", "results.csv", "summary.json", "table.md",
                     "table.tex"}
    assert "ece" not in set(results["metric"]) and "ECE" not in (folders / "out" / "table.md").read_text()
    summary = json.loads((folders / "out" / "summary.json").read_text())
    assert "ece" not in summary["mean_over_subsets"]["tumor core"] and not results.attrs["notes"]


def test_predictions_without_probabilities_are_counted(folders):
    for name in ("a", "b"):
        (folders / "pred" / "t2" / f"{name}.npz").unlink()
    results = evaluate_folder(folders / "gt", folders / "pred", dataset(REGIONS), folders / "out")
    assert not results.attrs["errors"] and "ECE of 4 of 6 predictions" in "".join(results.attrs["notes"])
    rows = [line for line in (folders / "out" / "table.md").read_text().split("ECE (%")[1].splitlines()
            if line.startswith(("| ●", "| ○"))]
    assert rows[0].endswith("| 1 |") and rows[1].endswith("| 3 |")  # n of the ECE, not of the Dice


def spoil(path, what):
    """Damages an npz; returns what its error says."""
    with np.load(path) as archive:
        p = archive["probabilities"]
    if what == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif what == "flipped bytes":
        content = bytearray(path.read_bytes())
        content[2000:2100] = bytes(100)
        path.write_bytes(content)
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "not an npz":
        path.write_text("hello")
    elif what == "an npy":
        with open(path, "wb") as file:
            np.save(file, p)
    elif what == "a pickle":
        np.savez(path, probabilities=np.array([{"a": 1}, None], dtype=object))
    elif what == "other key":
        np.savez(path, softmax=p)
    else:
        made = {"shape": p[:, 1:], "axes": p.transpose(0, 3, 2, 1), "channels": p[:2], "integers": (p > 0.5).astype(int),
                "logits": np.log(p / (1 - p)), "nan": np.full_like(p, np.nan), "one number": np.float32(1),
                "of another": 0.5 * p}[what]
        np.savez(path, probabilities=made)
        return {"logits": "expected 0 to 1", "nan": "expected 0 to 1", "of another": "another prediction"}.get(
            what, "expected floats of 3 channels")
    return "cannot read probabilities"


@pytest.mark.parametrize("what", [
    "truncated", "flipped bytes", "empty", "not an npz", "an npy", "a pickle", "other key", "shape", "axes", "channels",
    "integers", "logits", "nan", "one number", "of another"])
def test_bad_probabilities_are_named_and_everything_else_finishes(folders, monkeypatch, capsys, what):
    path = folders / "pred" / "t2" / "b.npz"
    message = spoil(path, what)
    assert run(monkeypatch, "-gt", folders / "gt", "-pred", folders / "pred", "-o", folders / "out") == 1
    complaint = capsys.readouterr().err
    assert f"case b, subset t2, {path}" in complaint and message in complaint and "Traceback" not in complaint
    results = pd.read_csv(folders / "out" / "results.csv")
    assert (results["metric"] == "ece").sum() == 5 * 3 and (results["metric"] == "dice").sum() == 6 * 3


def test_a_segmentation_that_was_processed_later_is_noted(folders):
    path = folders / "pred" / "t2" / "a.nii.gz"
    labels = np.asanyarray(nib.load(path).dataobj).T.copy()
    labels[0] = 0
    write(labels, path)
    results = evaluate_folder(folders / "gt", folders / "pred", dataset(REGIONS), folders / "out")
    (note,) = [note for note in results.attrs["notes"] if "own probabilities" in note]
    assert note.startswith("1 prediction differs from its own") and not results.attrs["errors"]


def frame(ece, cases="ab", subset="t1"):
    rows = [(case, subset, "x", metric, value) for case in cases for metric, value in (("dice", 0.5), ("ece", ece))
            if value is not None]
    return pd.DataFrame(rows, columns=["case", "subset", "region", "metric", "value"])


def test_only_two_eces_must_have_the_same_bins():
    ours, theirs = Conventions(), Conventions(ece_bins=20)
    check_comparable("ours", ["x"], ours, [Method("other", frame(0.1), theirs)], with_ece=False)
    check_comparable("ours", ["x"], ours, [Method("other", frame(None), theirs)], with_ece=True)
    check_comparable("ours", ["x"], ours, [Method("other", frame(0.1), ours)], with_ece=True)
    with pytest.raises(NnmissError, match="ece_bins is 15, theirs 20"):
        check_comparable("ours", ["x"], ours, [Method("other", frame(0.1), theirs)], with_ece=True)
    with pytest.raises(NnmissError, match="other conventions"):
        check_comparable("ours", ["x"], ours, [Method("other", frame(None), Conventions(empty="nan", ece_bins=20))])


def test_methods_with_an_ece_are_compared_on_common_pairs():
    methods = {"ours": frame(0.1, "abc"), "b": frame(0.2, "bcd"), "without": frame(None, "abc")}
    kept, notes = results_with("ece", methods)
    assert {name: set(of["case"]) for name, of in kept.items()} == {"ours": {"b", "c"}, "b": {"b", "c"}}
    assert notes[0].startswith("without has no ECE") and len(notes) == 3
    kept, notes = results_with("ece", {"ours": frame(0.1, "a"), "b": frame(0.2, "b")})
    assert list(kept) == ["ours"] and "not compared" in notes[0]
    assert results_with("ece", {"ours": frame(None), "b": frame(0.2)}) == ({}, [])


def test_lower_is_better_in_the_comparison(folders, monkeypatch, capsys):
    """The same segmentations with probabilities that are drawn towards 0 and 1, and so far from being calibrated."""
    import shutil

    shutil.copytree(folders / "pred", folders / "sure")
    for path in (folders / "sure").glob("*/*.npz"):
        with np.load(path) as archive:
            p = archive["probabilities"]
        np.savez(path, probabilities=np.where(p > 0.5, p + 0.999 * (1 - p), 0.001 * p))
    assert run(monkeypatch, "-gt", folders / "gt", "-pred", folders / "sure") == 0
    out, common = folders / "out", ("-gt", folders / "gt", "-pred", folders / "pred", "-o", folders / "out")
    assert run(monkeypatch, *common, "--compare", folders / "sure") == 0
    comparison = json.loads((out / "summary.json").read_text())["comparison"]
    assert [entry["metric"] for entry in comparison] == ["dice"] * 3 + ["hd95"] * 3 + ["ece"] * 3
    assert all(entry["case_test"]["mean_difference"] < 0 for entry in comparison[6:])
    assert all(entry["row_test"]["p"] < 0.5 for entry in comparison[6:] if entry["row_test"]["p"] is not None)
    text = (out / "table.md").read_text()
    first = next(line for line in text.split("ECE (%")[1].splitlines() if line.startswith(("| ●", "| ○")))
    cells = [cell.strip() for cell in first.split("|")[5:9]]  # whole block: other, ours, Imprv
    assert not cells[0].startswith("*") and cells[1].startswith("**")
    assert 0 < float(cells[2].rstrip("%")) < 100 and "| ECE (%) |" in text
    assert run(monkeypatch, *common, "--compare", folders / "sure", "--ece_bins", 20) == 1
    assert "ece_bins is 20, theirs 15" in capsys.readouterr().err


def test_conventions_of_earlier_results_are_read_and_bad_bins_refused():
    earlier = Conventions("brats2023").as_dict()
    del earlier["ece_bins"]
    assert Conventions.from_dict(earlier) == Conventions("brats2023")
    for bad in (0, -1, 2.5, "15", None, 10**9):
        with pytest.raises(NnmissError, match="ece_bins"):
            Conventions(ece_bins=bad)
