"""Time series against a slow reference, and the 76 features of the MIMIC benchmarks."""
from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from nnmiss.classification.kinds import KINDS
from nnmiss.errors import NnmissError

KIND = KINDS["timeseries"]
# real, openly licensed data beside the repository; tests that need it are skipped elsewhere
REAL_DATA = Path(os.environ.get("NNMISS_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
CONFIG = REAL_DATA / "mimic_benchmark_resources" / "discretizer_config.json"
SMALL = {"id_to_channel": ["eye", "rate", "total"], "is_categorical_channel": {"eye": True, "rate": False, "total": True},
         "possible_values": {"eye": ["None", "To Pain", "4 Spontaneously"], "rate": [], "total": ["11", "3"]},
         "normal_values": {"eye": "4 Spontaneously", "rate": "86", "total": "3"}}


def configurations():
    yield pytest.param(SMALL, id="small")
    if CONFIG.is_file():
        yield pytest.param(json.loads(CONFIG.read_text()), id="mimic")
    else:
        yield pytest.param(SMALL, id="mimic", marks=pytest.mark.skip(reason=f"{CONFIG} is not there"))


def spec_from(config: dict, **entries) -> dict:
    columns = {name: {"kind": "continuous", "normal": config["normal_values"][name]} for name in config["id_to_channel"]}
    for name, values in config["possible_values"].items():
        if config["is_categorical_channel"][name]:
            columns[name].update(kind="categorical", values=values)
    return KIND.check_spec({"type": "timeseries", "columns": columns, **entries}, "x")


def write_csv(path: Path, header: list[str], rows: list[list]) -> Path:
    path.write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")
    return path


def random_rows(config: dict, seed: int, hours: float, n: int) -> list[list]:
    random = np.random.default_rng(seed)
    rows = []
    for time in np.sort(random.uniform(0, hours, n)):
        cells = [f"{time:.4f}"]
        for name in config["id_to_channel"]:
            values = config["possible_values"][name]
            cell = random.choice(values) if values else f"{random.uniform(1, 200):.3f}"
            cells.append("" if random.random() < 0.6 else cell)
        rows.append(cells)
    return rows


def slow_features(config: dict, rows: list[list], hours: float | None) -> list[list[float]]:
    """Row by row, bin by bin and cell by cell, without scaling: what the benchmarks' discretizer is described to do."""
    names = config["id_to_channel"]
    end = hours if hours else max(float(row[0]) for row in rows)
    bins = 0
    while bins < end - 1e-6 or not bins:
        bins += 1
    held = [{} for _ in range(bins)]
    for row in rows:
        time = float(row[0])
        if time <= end + 1e-6:
            which = 0
            while time > which + 1 + 1e-6:
                which += 1
            for name, cell in zip(names, row[1:]):
                if cell != "":
                    held[which][name] = cell
    last, out = dict(config["normal_values"]), []
    for values in held:
        last.update(values)
        features = []
        for name in names:
            if config["is_categorical_channel"][name]:
                features += [float(last[name] == value) for value in config["possible_values"][name]]
            else:
                features.append(float(last[name]))
        out.append(features + [float(name in values) for name in names])
    return out


@pytest.mark.parametrize("config", configurations())
@pytest.mark.parametrize("hours", [48, None])
def test_features_against_a_slow_reference(tmp_path, config, hours):
    spec = spec_from(config, length=hours)
    rows = [random_rows(config, seed, 60, 80) for seed in range(4)]
    values = [KIND.read(write_csv(tmp_path / f"{i}.csv", ["Hours", *config["id_to_channel"]], r), spec)
              for i, r in enumerate(rows)]
    expected = [np.array(slow_features(config, r, hours)) for r in rows]
    fitted = KIND.fit(values[:3], spec)
    out = [series.numpy() for series in KIND.transform(values, spec, fitted)]
    if len(config["id_to_channel"]) == 17:
        assert out[0].shape[1] == 76 and KIND.shape(values, spec) == (None, 76)
    place, train = 0, np.concatenate(expected[:3])
    for name in config["id_to_channel"]:
        if config["is_categorical_channel"][name]:
            place += len(config["possible_values"][name])
            continue
        mean, sd = train[:, place].mean(), train[:, place].std()  # of all bins of training, filled
        for series in expected:
            series[:, place] = (series[:, place] - mean) / sd
        place += 1
    for got, wanted in zip(out, expected):
        assert got.shape == wanted.shape and np.allclose(got, wanted, atol=2e-5)


def test_real_stays_of_the_mimic_demo_have_76_features(tmp_path):
    """Heart rates and coma scores as charted, by the hour, of stays of the demo; the item numbers are CareVue's."""
    charts = REAL_DATA / "mimic3_demo" / "chartevents.csv.gz"
    if not charts.is_file() or not CONFIG.is_file():
        pytest.skip(f"{charts} or {CONFIG} is not there")
    import pandas
    config = json.loads(CONFIG.read_text())
    events = pandas.read_csv(charts, usecols=["icustay_id", "itemid", "charttime", "value"], dtype=str)
    variables = {"211": "Heart Rate", "184": "Glascow coma scale eye opening", "198": "Glascow coma scale total"}
    events = events[events.itemid.isin(variables)].dropna()
    stays, spec, values, expected = events.icustay_id.unique()[:5], spec_from(config, length=48), [], []
    for stay in stays:
        mine = events[events.icustay_id == stay].copy()
        hours = (pandas.to_datetime(mine.charttime) - pandas.to_datetime(mine.charttime).min()).dt.total_seconds() / 3600
        rows = []
        for hour, item, value in sorted(zip(hours, mine.itemid, mine.value)):
            row = [hour] + [""] * 17
            row[1 + config["id_to_channel"].index(variables[item])] = value
            rows.append(row)
        values.append(KIND.read(write_csv(tmp_path / "s.csv", ["Hours", *config["id_to_channel"]], rows), spec))
        expected.append(np.array(slow_features(config, rows, 48)))
    fitted = KIND.fit(values, spec)
    for got, wanted in zip(KIND.transform(values, spec, fitted), expected):
        categorical = [f for f in range(76) if set(np.unique(np.concatenate(expected)[:, f])) <= {0.0, 1.0}]
        assert got.shape == (48, 76) and np.allclose(got[:, categorical], wanted[:, categorical])
    heart = np.concatenate(expected)[:, 50]
    assert fitted["shift"]["Heart Rate"] == pytest.approx(heart.mean(), rel=1e-6)


def read(tmp_path, text: str, **entries):
    path = tmp_path / "a.csv"
    path.write_text(text)
    columns = {"x": "continuous", "c": {"kind": "categorical", "values": ["15", "3", "None"]}}
    return KIND.read(path, KIND.check_spec({"type": "timeseries", "columns": columns, **entries}, "x"))


def test_bins_end_at_their_hour_and_the_last_value_wins(tmp_path):
    out = read(tmp_path, "Hours,c,x,other\n0,15.0,1,a\n1.0,,2,b\n1.01,None,3,c\n2,3,,d\n0.5,,9,e\n2.5,,,\n")
    assert out.dtype == np.float32 and np.array_equal(out, [[2, 0], [3, 1], [np.nan, np.nan]], equal_nan=True)


def test_rows_outside_the_length_do_not_count(tmp_path):
    text = "Hours,x,c\n-1,5,\n0.2,1,\n3.0,2,\n3.2,7,\n"
    assert np.array_equal(read(tmp_path, text, length=3)[:, 0], [1, np.nan, 2], equal_nan=True)
    assert len(read(tmp_path, text, length=2.5)) == 3 and len(read(tmp_path, text, timestep=0.5)) == 7
    assert read(tmp_path, "Hours,x,c\n0,5,\n").shape == (1, 2)  # one step
    out = read(tmp_path, "Hours,x,c\n0,nan,NA\n0.1,4,15\n")
    assert out.tolist() == [[4, 0]]


@pytest.mark.parametrize("text, words", [
    ("", ("empty",)), ("Hours,x,c\n", ("no row",)), ("Hours,x\n1,2\n", ("'c'",)), ("time,x,c\n1,2,3\n", ("'Hours'",)),
    ("Hours,x,c\n1,high,3\n", ("row 2", "'x'", "'high'")), ("Hours,x,c\n1,inf,3\n", ("'inf'",)),
    ("Hours,x,c\n0,1,15\n1,2,4\n", ("row 3", "'c'", "'4'", "'15'")), ("Hours,x,c\n,1,15\n", ("no time",)),
    ("Hours,x,c\n-5,1,15\n", ("no row lies",)), ("Hours,x,c\n1e9,1,15\n", ("steps",)), ("Hours,x,c\n1,2\n", ("line 2",)),
    ("Hours,x,c\n1,1e300,3\n", ("'1e300'",))])
def test_cells_that_cannot_be_used_are_named(tmp_path, text, words):
    with pytest.raises(NnmissError) as caught:
        read(tmp_path, text)
    assert "a.csv" in str(caught.value) and all(word in str(caught.value) for word in words)


def test_imputation_by_training_means_and_modes():
    columns = {"x": "continuous", "c": {"kind": "categorical", "values": ["p", "q", "r"]}}
    nan = np.nan
    train = [np.array([[1, 2], [nan, 2]], np.float32), np.array([[nan, nan], [4, 0]], np.float32)]
    new = [np.array([[nan, nan], [10, 1], [nan, nan]], np.float32)]
    for impute, expected in (("previous", [2.5, 10, 10]), ("mean", [2.5, 10, 2.5])):
        spec = KIND.check_spec({"type": "timeseries", "columns": columns, "impute": impute}, "x")
        fitted = KIND.fit(train, spec)
        filled = [1, 1, 2.5, 4] if impute == "previous" else [1, 2.5, 2.5, 4]
        mean, sd = np.mean(filled), np.std(filled)
        out = KIND.transform(new, spec, fitted)[0].numpy()
        codes = [2, 1, 1] if impute == "previous" else [2, 1, 2]  # r is the commonest
        assert np.allclose(out[:, 0], (np.array(expected) - mean) / sd, atol=1e-6)
        assert np.array_equal(out[:, 1:4], np.eye(3)[codes]) and out[:, 4:].tolist() == [[0, 0], [1, 1], [0, 0]]


def test_given_statistics_replace_the_fitted_ones_and_masks_can_be_left_out():
    spec = KIND.check_spec({"type": "timeseries", "columns": {"x": {"mean": 10, "sd": 2}}, "observed": False}, "x")
    fitted = KIND.fit([np.array([[3.0]], np.float32)], spec)
    assert KIND.transform([np.array([[14.0]], np.float32)], spec, fitted)[0].tolist() == [[2.0]]


def test_packed_files_and_byte_order_marks(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress("\ufeffHours,x\n1,2\n".encode()))
    spec = KIND.check_spec({"type": "timeseries", "columns": ["x"]}, "x")
    assert KIND.read(tmp_path / "a.csv.gz", spec).tolist() == [[2.0]]
