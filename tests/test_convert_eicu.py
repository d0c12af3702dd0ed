"""The eICU blocks: what is written, what is refused, and what a grouped logistic regression finds in the real file."""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nnmiss.classification.description import read_description
from nnmiss.dataset_conversion import eicu_blocks
from nnmiss.dataset_conversion.eicu_blocks import BLOCKS, Options
from nnmiss.errors import NnmissError

DATA = Path(os.environ.get("NNMISS_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data") / "eicu_demo"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data in {DATA} (set NNMISS_TEST_DATA)")
# pooled AUROC of a logistic regression on each block and on all, grouped 5-fold, as published with the file
AUROC = {"aps": 0.771, "demo": 0.689, "treatment": 0.675, "diagnosis": 0.677, "history": 0.643, "all": 0.778}


def convert(source, tmp_path, **options):
    return eicu_blocks.convert([source], tmp_path / "raw", 859, Options(**options))


def make_blocks(path: Path, **changes) -> Path:
    """12 stays of 6 patients; of `treatment` stay k is absent when k % 4 == 0, and `aps` has a hole inside stay 1."""
    rng = np.random.default_rng(0)
    arrays = {"ids": np.arange(100, 112), "mortality": np.arange(12) % 2,
              "patient": np.repeat([f"p{i}" for i in range(6)], 2)}
    for number, block in enumerate(BLOCKS):
        values = rng.normal(size=(12, number + 2)).astype(np.float32)
        arrays[f"{block}_present"] = np.ones(12, bool)
        if block == "treatment":
            arrays[f"{block}_present"] = np.arange(12) % 4 > 0
            values[::4] = np.nan
        arrays |= {block: values, f"{block}_names": np.array([f"{block}{i}" for i in range(number + 2)])}
    arrays["aps"][1, 0] = np.nan
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def read(folder, name):
    return pd.read_csv(folder / "tables" / f"{name}.csv", index_col="sample_id", dtype={"sample_id": str})


def test_absent_blocks_have_no_row_and_holes_inside_a_row_stay_empty(tmp_path):
    summary = convert(make_blocks(tmp_path / "eicu_blocks.npz"), tmp_path)
    treatment, aps = read(summary.folder, "treatment"), read(summary.folder, "aps")
    assert list(treatment.index) == [str(100 + k) for k in range(12) if k % 4] and treatment.notna().all(axis=None)
    assert np.isnan(aps.loc["101", "aps0"]) and aps.isna().sum().sum() == 1
    description = read_description(summary.folder)
    assert list(description.modalities) == list(BLOCKS) and description.task == "binary"
    manifest = pd.read_csv(summary.folder / "manifest.csv", dtype=str)
    assert manifest["subject_id"].tolist() == [f"p{k // 2}" for k in range(12)]
    assert manifest["label"].tolist() == [str(k % 2) for k in range(12)]
    assert "split" not in manifest


@pytest.mark.parametrize(("changes", "message"), [
    ({"history": None}, "lacks the arrays history"), ({"mortality": np.arange(12)}, "0 and 1 only"),
    ({"demo_names": np.array(["a"])}, "demo_names has 1 entries, expected 3"),
    ({"patient": np.array(["a"])}, "patient has 1 entries, expected 12"),
    ({"ids": np.array([object()] * 12)}, "cannot be read")])
def test_another_file_is_refused(tmp_path, changes, message):
    with pytest.raises(NnmissError, match=message):
        convert(make_blocks(tmp_path / "eicu_blocks.npz", **changes), tmp_path)


def test_an_absent_or_damaged_file_is_named(tmp_path):
    with pytest.raises(NnmissError, match=r"eicu_blocks.npz does not exist"):
        convert(tmp_path, tmp_path)
    (tmp_path / "eicu_blocks.npz").write_bytes(b"no archive")
    with pytest.raises(NnmissError, match="cannot be read"):
        convert(tmp_path, tmp_path)
    np.save(tmp_path / "eicu_blocks.npy", np.zeros(3))
    with pytest.raises(NnmissError, match=r"eicu_blocks\.npy cannot be read"):
        convert(tmp_path / "eicu_blocks.npy", tmp_path)


@needs_data
def test_the_real_blocks_hold_what_a_logistic_regression_finds_in_them(tmp_path):
    """Median, z-score and a penalty of C = 0.02, fitted per fold; within 0.01 of the published AUROC (the folds there are
    not known to the last row)."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    folder = convert(DATA, tmp_path).folder
    manifest = pd.read_csv(folder / "manifest.csv", dtype=str)
    died, ids = manifest["label"].astype(int).to_numpy(), manifest["sample_id"]
    assert len(manifest) == 1838 and died.sum() == 155
    tables = {block: read(folder, block) for block in BLOCKS}
    assert [len(tables[block]) < 1838 for block in BLOCKS] == [False, False, True, True, True]
    blocks = {name: table.reindex(ids).to_numpy() for name, table in tables.items()}
    assert {name: block.shape[1] for name, block in blocks.items()} == \
        {"aps": 24, "demo": 23, "treatment": 60, "diagnosis": 60, "history": 40}
    blocks["all"] = np.hstack(list(blocks.values()))
    folds = list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(ids, died, manifest["subject_id"]))
    for name, block in blocks.items():
        scores = np.zeros(len(died))
        for train, test in folds:
            scores[test] = regression().fit(block[train], died[train]).predict_proba(block[test])[:, 1]
        assert roc_auc_score(died, scores) == pytest.approx(AUROC[name], abs=0.01), name


def regression():
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(),
                         LogisticRegression(C=0.02, max_iter=500))
