"""nnmiss_report: training, availability and calibration are shown; what of them is absent or damaged is named."""
from __future__ import annotations

import json

import pandas as pd
from report_pages import MODALITIES, check_page, make_fold, make_results, page_of


def test_training_of_a_final_validation(tmp_path):
    fold = make_fold(tmp_path / "Dataset812_Made" / "nnMissTrainerMetaKD__nnMissPlans-new__3d_fullres")
    make_results(fold / "validation", name="validation")
    parsed = check_page(page_of(fold / "validation").html)
    assert "metakd new fold 0" in parsed.text and "Dataset812_Made" in parsed.text
    for text in ("8 epochs", "training loss", "importance weights", "distillation", "num_epochs", "seed"):
        assert text in parsed.text


def test_training_files_that_are_damaged_or_absent(tmp_path):
    fold = make_fold(tmp_path / "model", ("joint",))
    (fold / "checkpoint_final.pth").write_bytes(b"not a checkpoint")
    (fold / "importance_weights.csv").write_text("iteration,flair\n1,x\n")
    (fold / "run.json").unlink()
    make_results(tmp_path / "ours")
    page = page_of(tmp_path / "ours", models=[str(tmp_path / "model"), str(tmp_path / "ours")])
    parsed = check_page(page.html)
    for text in ("checkpoint_final.pth", "importance_weights.csv", "run.json", "ours has no folder fold_K"):
        assert text in parsed.text and any(text in sentence for sentence in page.missing)
    (fold / "checkpoint_final.pth").unlink()
    (fold / "progress.png").write_bytes(b"\x89PNG made up")
    assert 'src="data:image/png;base64,' in page_of(tmp_path / "ours", models=[str(fold)]).html


def test_availability_and_calibration(tmp_path, monkeypatch):
    make_results(tmp_path / "Dataset812_Made" / "ours")
    preprocessed = tmp_path / "nnUNet_preprocessed" / "Dataset812_Made"
    preprocessed.mkdir(parents=True)
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)  # found beside the results
    (preprocessed / "availability.json").write_text(json.dumps({
        "modalities": MODALITIES, "cases": {"a": [True] * 4, "b": [True] * 4, "c": [False, True, False, True]}}))
    pd.DataFrame({"subset": "flair", "region": "tumor_core", "bin": [1, 2], "n": [10, 30], "mean_confidence": [0.6, 0.9],
                  "accuracy": [0.5, 0.9]}).to_csv(tmp_path / "Dataset812_Made" / "ours" / "calibration.csv", index=False)
    parsed = check_page(page_of(tmp_path / "Dataset812_Made" / "ours").html)
    table = next(t for t in parsed.tables if t["caption"].startswith("Training cases: 3 cases"))
    assert [row[5:7] for row in table["rows"][1:-1]] == [["2", "66.7"], ["1", "33.3"]]
    assert table["rows"][-1][1:5] == ["2", "3", "2", "3"]
    assert "1: ECE 2.5 %" in parsed.text  # (10 * |0.5 - 0.6| + 0) / 40
    (tmp_path / "Dataset812_Made" / "ours" / "calibration.csv").write_text("subset,region\nflair,x\n")
    assert "calibration.csv cannot be read" in page_of(tmp_path / "Dataset812_Made" / "ours").html
