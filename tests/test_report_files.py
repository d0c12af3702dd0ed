"""nnmiss_report: images, truth, predictions and models are found where results say or nnU-Net has them."""
from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from report_pages import MODALITIES, REGIONS, check_page, make_fold, make_results, page_of

from nnmiss.availability import parse_subset
from nnmiss.errors import NnmissError
from nnmiss.report import viewer_part as viewer_module
from nnmiss.report.dataset_files import find_places, find_trainings
from nnmiss.report.sources import read_source


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """nnU-Net's folders of a data set with three test cases, one of which lacks t2, and predictions of two subsets."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    raw, pred = tmp_path / "nnUNet_raw" / "Dataset812_Made", tmp_path / "pred" / "metakd"
    cases = ["a", "b", "c"]
    for case in cases:
        for channel in range(3 if case == "b" else 4):
            write(raw / "imagesTs" / f"{case}_{channel:04d}.nii.gz")
        write(raw / "labelsTs" / f"{case}.nii.gz")
        for subset in ("flair", "flair+t1"):
            write(pred / subset / f"{case}.nii.gz")
    content = {"channel_names": {str(i): m for i, m in enumerate(MODALITIES)}, "file_ending": ".nii.gz", "numTraining": 3,
               "labels": {"background": 0, **{k: list(v) for k, v in REGIONS.items()}}, "regions_class_order": [1, 2, 3]}
    for folder in (raw, pred):
        (folder / "dataset.json").write_text(json.dumps(content))
    (pred / "plans.json").write_text(json.dumps({"dataset_name": "Dataset812_Made"}))
    make_results(pred, cases)
    return tmp_path


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


@dataclass
class StubSection:
    html: str
    cases: list[str]
    notes: list[str] = field(default_factory=list)
    bytes: int = 1_500_000


@pytest.fixture
def given(monkeypatch):
    """Stands in for the viewer; keeps what it is given."""
    kept = {}

    def make(cases, max_bytes, colours, modalities):
        kept.update(cases=cases, max_bytes=max_bytes, colours=colours)
        return StubSection('<section id="viewer"><h2>Images</h2></section>', [c.name for c in cases])

    monkeypatch.setattr(viewer_module, "_make", make)
    monkeypatch.setattr(viewer_module, "_colours", lambda sources: {1: ("x", (1, 2, 3))})
    return kept


def test_files_of_the_chosen_cases_reach_the_viewer(tree, given):
    page = page_of(tree / "pred" / "metakd", viewer=True, max_mb=10)
    cases = {case.name: case for case in given["cases"]}
    raw = tree / "nnUNet_raw" / "Dataset812_Made"
    assert set(cases) == {"a", "b", "c"} and page.embedded == 3
    assert list(cases["a"].images) == MODALITIES and list(cases["b"].images) == MODALITIES[:3]
    assert cases["a"].images["t1"] == raw / "imagesTs" / "a_0001.nii.gz"
    assert cases["a"].gt == raw / "labelsTs" / "a.nii.gz"
    pred = tree / "pred" / "metakd"
    assert cases["a"].predictions == {"metakd": {s: pred / s / "a.nii.gz" for s in ("flair", "flair+t1")}}
    assert re.fullmatch(r"Dice \(%\): ET [\d.]+, TC [\d.]+, WT [\d.]+", cases["a"].scores["metakd"]["flair"])
    assert 8_000_000 < given["max_bytes"] < 10_000_000
    parsed = check_page(page.html)
    linked = {a["data-case"] for a in parsed.links if a.get("href") == "#viewer" and "data-case" in a}
    assert linked == {"a", "b", "c"}
    plot = re.search(r'<figure id="cases-plot">.*?</figure>', page.html, re.DOTALL)[0]
    assert plot.count('<a href="#viewer" data-case=') == 9
    assert "Images of 3 of 3 cases are here, 1.5 MB" in parsed.text


def test_named_cases_flags_and_a_case_without_images(tree, given):
    for channel in range(4):
        write(tree / "elsewhere" / f"c_{channel:04d}.nii.gz")
    write(tree / "truth" / "c.nii.gz")
    for file in (tree / "nnUNet_raw" / "Dataset812_Made" / "imagesTs").glob("a_*"):
        file.unlink()
    page = page_of(tree / "pred" / "metakd", viewer=True, cases=["c", "a"], images=str(tree / "elsewhere"),
                   gt=str(tree / "truth"))
    (case,) = given["cases"]
    assert case.name == "c" and case.images["flair"].parent.name == "elsewhere" and case.gt.parent.name == "truth"
    parsed = check_page(page.html)
    assert "No images of a were found" in parsed.text and "Images of 1 of 3 cases are here" in parsed.text
    assert {a["data-case"] for a in parsed.links if "data-case" in a} == {"c"}


def test_summary_sources_say_where_truth_and_predictions_are(tree, given):
    make_results(tree / "results", ["a", "b"], sources={"gt": str(tree / "gt"), "pred": str(tree / "pred" / "metakd")})
    write(tree / "gt" / "a.nii.gz")
    page_of(tree / "results", viewer=True)
    cases = {case.name: case for case in given["cases"]}
    assert cases["a"].gt == tree / "gt" / "a.nii.gz"
    assert cases["b"].gt == tree / "nnUNet_raw" / "Dataset812_Made" / "labelsTs" / "b.nii.gz"
    assert cases["a"].predictions["results"]["flair"] == tree / "pred" / "metakd" / "flair" / "a.nii.gz"


def test_a_viewer_that_fails_costs_only_itself(tree, monkeypatch):
    def fail(*_):
        raise NnmissError("no room")

    monkeypatch.setattr(viewer_module, "_make", fail)
    parsed = check_page(page_of(tree / "pred" / "metakd", viewer=True).html)
    assert "Images are not shown: no room" in parsed.text


def test_the_model_of_predictions_is_found(tree):
    model = tree / "nnUNet_results" / "Dataset812_Made" / "nnMissTrainerMetaKD__nnMissPlans__3d_fullres"
    fold = make_fold(model)
    (tree / "pred" / "metakd" / "flair" / "a.json").write_text(json.dumps({"model": {"folder": model.name, "folds": [0]}}))
    source = read_source(str(tree / "pred" / "metakd"))
    found, missing = find_trainings([source], [], find_places([source]))
    assert found == {"metakd": [fold]} and missing == []


def test_subset_names_in_another_order_are_the_same(tmp_path):
    make_results(tmp_path / "ours")
    path = tmp_path / "ours" / "results.csv"
    path.write_text(path.read_text().replace(",flair+t1,", ",T1+FLAIR,"))
    source = read_source(str(path))
    assert "flair+t1" in source.subsets and parse_subset("flair+t1", source.modalities) == (True, True, False, False)


def test_imported_scores_name_the_data_set_whose_images_are_shown(tree, given):
    portal = ["/x/scores.csv"]
    make_results(tree / "scores", ["a", "b"], sources={"portal": portal, "dataset": "Dataset812_Made"})
    page = page_of(tree / "scores", viewer=True)
    cases = {case.name: case for case in given["cases"]}
    raw = tree / "nnUNet_raw" / "Dataset812_Made"
    assert cases["a"].images["t1"] == raw / "imagesTs" / "a_0001.nii.gz" and cases["b"].gt == raw / "labelsTs" / "b.nii.gz"
    assert not cases["a"].predictions and "scores: a portal returned scores alone" in " ".join(page.missing)


@pytest.mark.parametrize("dataset", [None, 820, ["Dataset812_Made"], "", "elsewhere", "Dataset812_x/../Dataset812_Made"])
def test_a_data_set_that_is_no_name_is_not_followed(tree, given, dataset):
    make_results(tree / "scores", ["a"], sources={"portal": ["/x/scores.csv"], "dataset": dataset})
    page = page_of(tree / "scores", viewer=True)
    assert not given and any("No images of a were found" in text for text in page.missing)
