"""The writer that converters of classification data sets share: what it writes, what it names, what it refuses."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sample_sources import content_of, manifest_of, read_back

from nnmiss.cli.convert_dataset import print_summary
from nnmiss.dataset_conversion.sample_folder import missing_table, provenance_of, write_sample_dataset, write_values
from nnmiss.dataset_conversion.smnist import Options
from nnmiss.errors import NnmissError

CONTENT = {"task": "multiclass", "labels": {"0": "no", "1": "yes"},
           "modalities": {"volume": {"type": "array"}, "panel": {"type": "array", "file": "panel.npz"},
                          "clinical": {"type": "table", "file": "tables/clinical.csv"}}}
IDS = ["007", "a", "b", "c", "d", "e"]  # an id that is a number must stay text


def manifest(**columns):
    return pd.DataFrame({"sample_id": IDS, "subject_id": ["p", "p", "q", "r", "s", "t"],
                         "split": ["train", "train", "val", "test", "train", None], "label": [0, 1.0, True, None, 1, 0],
                         "volume": ["v/007.npy", None, "v/b.npy", float("nan"), "v/d.npy", None], **columns})


def fill(folder):
    """Volumes of 007, b and d, a panel of 007 and a, a table of c: e has nothing, d is found to be bad."""
    (folder / "v").mkdir()
    for name in ("007", "b", "d"):
        np.save(folder / "v" / f"{name}.npy", np.ones(3))
    write_values(folder / "panel.npz", ["007", "a"], np.eye(2))
    (folder / "tables").mkdir()
    (folder / "tables" / "clinical.csv").write_text("sample_id,age\nc,61\n")
    return {"d": "its volume is upside down"}


def write(root, table=None, writer=fill, **more):
    return write_sample_dataset(root, 9, "Made", CONTENT, manifest() if table is None else table, writer, **more)


def test_samples_are_written_and_the_bad_ones_named_everywhere(tmp_path, capsys):
    options, lacks = Options(seed=3), {sample: ["volume", "clinical"] for sample in IDS}
    splits = {"given": {"train": IDS[:2], "val": ["b", "d"]}, "folds": [{"train": ["a"], "val": ["d", "007"]}]}
    summary = write(tmp_path, failed={"z": "found bad before"}, notes=["a note"], splits=splits,
                    missing={"no_panel": missing_table(lacks, ["volume", "panel", "clinical"])},
                    provenance=provenance_of("made", [tmp_path], options, day="today"))
    assert summary.failed == {"z": "found bad before", "d": "its volume is upside down",
                              "e": "it has none of volume, panel, clinical"}
    table = manifest_of(summary.folder)
    assert list(table.index) == ["007", "a", "b", "c"] and list(table["label"]) == ["0", "1", "1", ""]
    assert list(table["volume"]) == ["v/007.npy", "", "v/b.npy", ""]
    assert summary.training == {"007": ["volume", "panel"], "a": ["panel"], "b": ["volume"]}
    assert summary.test == {"c": ["clinical"]}
    assert content_of(summary.folder, "splits/given.json") == {"train": ["007", "a"], "val": ["b"]}
    assert content_of(summary.folder, "splits/folds.json") == [{"train": ["a"], "val": ["007"]}]
    assert (summary.folder / "missing/no_panel.csv").read_text().splitlines()[:2] == [
        "case,volume,panel,clinical", "007,1,0,1"]
    record = content_of(summary.folder, "provenance.json")
    assert record["converter"] == "made" and record["options"]["seed"] == 3 and record["day"] == "today"
    assert content_of(summary.folder, "left_out.json") == summary.failed and content_of(summary.folder)["name"] == "Made"
    assert read_back(summary.folder).available.tolist() == [
        [True, True, False], [False, True, False], [True, False, False], [False, False, True]]
    print_summary(summary)
    out = capsys.readouterr()
    assert "training samples: 2; volume 1, panel 2, clinical 0" in out.out and "  no 1, yes 1" in out.out
    assert "no training sample has clinical" in out.out and "note: a note" in out.out
    assert "test samples: 1" in out.out and "unlabelled 1" in out.out and "no_panel" in out.out
    assert out.err.count("was not converted") == 3


def test_impossible_data_sets_are_refused_and_nothing_is_left(tmp_path):
    for table, writer, message in (
            (manifest(sample_id=["a"] * 6), fill, "more than once: a"),
            (manifest(split=["train"] * 5 + ["dev"]).iloc[[0, 5]].assign(volume="v/b.npy"), fill, "split may hold.*dev"),
            (manifest(volume=["v/no.npy"] * 6), fill, "volume that were not written: v/no.npy"),
            (manifest(), lambda folder: (fill(folder), (folder / "panel.npz").unlink())[0], r"panel.npz, which was not"),
            (manifest(), lambda folder: (fill(folder), (folder / "panel.npz").write_bytes(b"PK"))[0], r"panel.npz was wr"),
            (manifest(), lambda folder: fill(folder) | dict.fromkeys(IDS, "all bad"), "no sample could(.|\n)*c: all bad")):
        with pytest.raises(NnmissError, match=message):
            write(tmp_path, table, writer)
        assert list(tmp_path.iterdir()) == []
    write(tmp_path)
    with pytest.raises(NnmissError, match="--overwrite"):
        write(tmp_path)
    assert write(tmp_path, overwrite=True).failed


def test_only_the_first_of_many_failures_are_printed(tmp_path, capsys):
    summary = write(tmp_path, failed={f"bad_{i}": "bad" for i in range(300)})
    print_summary(summary)
    err = capsys.readouterr().err
    assert err.count("was not converted") == 100 and f"202 more samples were not converted, see {summary.folder}" in err
    assert len(content_of(summary.folder, "left_out.json")) == 302
