"""Preprocessing fitted on training samples alone, stored as JSON, applied to any samples."""
from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnmiss.classification.kinds import KINDS
from nnmiss.classification.preprocessing import (
    apply_preprocessing,
    augmented,
    fit_preprocessing,
    load_preprocessing,
    misfits,
    notes,
    save_preprocessing,
)
from nnmiss.errors import NnmissError

N = 12


def raw_samples(seed: int = 0, n: int = N) -> SimpleNamespace:
    """Samples of all kinds as the reader gives them; sample i lacks modality i % 6 and every second also the image."""
    random = np.random.default_rng(seed)
    specs = {"image": {"type": "image2d"}, "mri": {"type": "volume"}, "sound": {"type": "audio"},
             "ehr": {"type": "timeseries",
                     "columns": {"x": "continuous", "c": {"kind": "categorical", "values": ["p", "q"]}}},
             "clinical": {"type": "table", "file": "t.csv"}, "snp": {"type": "array"}, "text": {"type": "embedding"}}
    specs = {name: KINDS[spec["type"]].check_spec(spec, name) for name, spec in specs.items()}
    make = {"image": lambda i: random.integers(0, 256, (1, 6, 5), np.uint8),
            "mri": lambda i: random.random((1, 3, 4, 5), np.float32),
            "sound": lambda i: random.random((1, 20, 20), np.float32),
            "ehr": lambda i: np.stack([random.choice([np.nan, 1, 2], i + 1), random.choice([np.nan, 0, 1], i + 1)], 1
                                      ).astype(np.float32),
            "clinical": lambda i: {"age": str(random.integers(20, 90)), "sex": random.choice(["f", "m", ""]), "none": ""},
            "snp": lambda i: random.choice([0, 1, 2, np.nan], 7).astype(np.float32),
            "text": lambda i: random.random(4, np.float32)}
    values, row = {}, {}
    for m, name in enumerate(specs):
        has = torch.tensor([i % 7 != m and not (name == "image" and i % 2) for i in range(n)])
        values[name] = [make[name](i) for i in range(n) if has[i]]
        row[name] = torch.where(has, has.cumsum(0) - 1, -1)
    ids = [f"s{i:02d}" for i in range(n)]
    return SimpleNamespace(description=SimpleNamespace(modalities=specs), ids=ids, groups=ids, split=[""] * n,
                           targets=torch.arange(n) % 3, values=values, row=row)


def equal(first, second) -> bool:
    if isinstance(first, list):
        return all(map(torch.equal, first, second))
    return torch.equal(first, second)


def test_every_kind_goes_through_and_keeps_its_samples():
    raw = raw_samples()
    samples = apply_preprocessing(raw, fit_preprocessing(raw, torch.arange(8)))
    assert list(samples.modalities) == list(raw.row) and samples.ids == raw.ids
    assert torch.equal(samples.available, torch.stack([r >= 0 for r in raw.row.values()], 1))
    for name, stored in samples.modalities.items():
        assert all(value.isfinite().all() and value.dtype == torch.float32 for value in stored.values), name
    batch = samples.inputs(torch.tensor([0, 11, 3]))
    assert batch[3].values.shape == (3, 12, 5) and batch[4].values.shape == (3, 3)


@pytest.mark.parametrize("rows", [torch.arange(8), torch.tensor([1, 5, 2, 9])])
def test_only_training_samples_are_looked_at(rows):
    """Replacing every other sample by one of another distribution changes nothing of the fit."""
    raw, other = raw_samples(), raw_samples()
    training = set(rows.tolist())
    for name, row in raw.row.items():
        for sample, place in enumerate(row.tolist()):
            if place >= 0 and sample not in training:
                value = other.values[name][place]
                table = name == "clinical"
                other.values[name][place] = {"age": "1000", "sex": "x", "none": "9"} if table else value * 0 + 1
    assert fit_preprocessing(raw, rows) == fit_preprocessing(other, rows)


def test_what_a_missing_table_takes_away_is_not_looked_at():
    raw = raw_samples()
    rows, allowed = torch.arange(N), torch.stack([row >= 0 for row in raw.row.values()], 1)
    allowed[6:, 5] = False  # the array of the second half
    fitted = fit_preprocessing(raw, rows, allowed)
    half = fit_preprocessing(raw, torch.arange(6))
    assert fitted["modalities"]["snp"] == half["modalities"]["snp"]
    assert fitted["modalities"]["clinical"] == fit_preprocessing(raw, rows)["modalities"]["clinical"]
    assert fitted["modalities"]["clinical"] != half["modalities"]["clinical"]
    allowed[:, 5] = False  # nobody in training: neutral statistics, and still the network input for test samples
    samples = apply_preprocessing(raw, fit_preprocessing(raw, rows, allowed))
    assert samples.modalities["snp"].values.isfinite().all() and samples.shapes["snp"] == (7,)


def test_stored_preprocessing_is_the_same_to_the_last_bit(tmp_path):
    raw = raw_samples()
    fitted = fit_preprocessing(raw, torch.arange(9))
    save_preprocessing(fitted, tmp_path)
    restored = load_preprocessing(tmp_path)
    new = raw_samples(seed=5)
    first, second = (apply_preprocessing(new, each).modalities.values() for each in (fitted, restored))
    for a, b in zip(first, second):
        assert equal(a.values, b.values) and torch.equal(a.row, b.row)
    assert [path.name for path in tmp_path.iterdir()] == ["preprocessing.json"]


def test_one_sample_alone_is_preprocessed_as_among_others():
    raw = raw_samples()
    fitted = fit_preprocessing(raw, torch.arange(8))
    whole = apply_preprocessing(raw, fitted)
    for sample in (0, 11):
        alone = SimpleNamespace(**{**vars(raw), "ids": [raw.ids[sample]], "groups": [raw.ids[sample]],
                                   "targets": raw.targets[sample:sample + 1],
                                   "values": {n: [v[raw.row[n][sample]]] if raw.row[n][sample] >= 0 else []
                                              for n, v in raw.values.items()},
                                   "row": {n: row[sample:sample + 1].clamp(max=0) for n, row in raw.row.items()}})
        one = apply_preprocessing(alone, fitted)
        for name, stored in whole.modalities.items():
            if stored.row[sample] >= 0:
                assert torch.equal(stored.values[stored.row[sample]], one.modalities[name].values[0]), name


def test_samples_that_do_not_go_with_training_are_named():
    raw = raw_samples()
    fitted = fit_preprocessing(raw, torch.arange(8))
    raw.values["image"][int(raw.row["image"][10])] = np.zeros((1, 9, 9), np.uint8)
    raw.values["clinical"][int(raw.row["clinical"][9])] = {"age": "old", "sex": "f", "none": ""}
    found = misfits(raw, fitted)
    assert {name: list(wrong) for name, wrong in found.items()} == {"image": ["s10"], "clinical": ["s09"]}
    with pytest.raises(NnmissError, match=r"image.*s10.*\(1, 9, 9\).*\(1, 6, 5\)"):
        apply_preprocessing(raw, fitted)
    with pytest.raises(NnmissError, match=r"image.*s10"):
        fit_preprocessing(raw, torch.arange(N))


def test_only_what_asks_for_it_is_augmented_and_it_can_be_replayed():
    raw = raw_samples()
    fitted = fit_preprocessing(raw, torch.arange(8))
    inputs = apply_preprocessing(raw, fitted).inputs(torch.arange(4))
    generator = torch.Generator().manual_seed(2)
    assert all(a is b for a, b in zip(augmented(inputs, fitted, generator), inputs))
    fitted["modalities"]["image"]["spec"]["augmentation"] = "cxr"
    first, second = (augmented(inputs, fitted, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first[0].values, second[0].values) and not torch.equal(first[0].values, inputs[0].values)
    assert first[0].values.shape == inputs[0].values.shape and all(a is b for a, b in zip(first[1:], inputs[1:]))


def test_columns_that_are_left_out_are_told():
    raw = raw_samples()
    told = notes(fit_preprocessing(raw, torch.arange(8)))
    assert told == ["clinical: column none is left out, empty in every training sample"]


def test_a_table_nobody_of_training_has_is_named():
    raw = raw_samples()
    with pytest.raises(NnmissError, match=r"modality clinical.*no training sample"):
        fit_preprocessing(raw, torch.tensor([4]))


@pytest.mark.parametrize("content", ["{", "[]", '{"modalities": {"a": {}}}', '{"modalities": 3}',
                                     '{"modalities": {"a": {"spec": {"type": "movie"}, "fitted": {}}}}'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "preprocessing.json").write_text(content)
    with pytest.raises(NnmissError, match=r"preprocessing\.json"):
        load_preprocessing(tmp_path)
    with pytest.raises(NnmissError, match="not found"):
        load_preprocessing(tmp_path / "elsewhere")


def test_the_file_is_plain_json(tmp_path):
    save_preprocessing(fit_preprocessing(raw_samples(), torch.arange(8)), tmp_path)
    assert set(json.loads((tmp_path / "preprocessing.json").read_text())["modalities"]) == set(raw_samples().row)
