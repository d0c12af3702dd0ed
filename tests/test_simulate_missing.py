"""Simulated missingness: what the protocols promise, counted over many cases, and the command that writes the table."""
from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from itertools import product

import pytest
from scipy.stats import binomtest, chisquare

from nnmiss.availability import apply_missing_table, read_missing_table
from nnmiss.cli import phantom, plan_and_preprocess, simulate_missing
from nnmiss.errors import NnmissError
from nnmiss.preprocessing.raw_dataset import list_cases
from nnmiss.preprocessing.simulate_missing import (
    brasyn,
    check_every_modality_left,
    complete_cases,
    full_ratio,
    missing_rates,
    parse_rates,
    summary_text,
    table_text,
)

NAMES = ["flair", "t1", "t1ce", "t2"]
MANY = 4000
ALARM = 1e-4  # a seed is fixed, so a test that passes goes on passing; a wrong distribution gives p far below


def complete(number: int, modalities: int = 4) -> dict:
    return {f"case_{i:05d}": (True,) * modalities for i in range(number)}


def with_holes(number: int, modalities: int = 4) -> dict:
    """Every non-empty pattern of files, in turn."""
    patterns = [p for p in product((False, True), repeat=modalities) if any(p)]
    return {f"case_{i:05d}": patterns[i % len(patterns)] for i in range(number)}


PROTOCOLS = {
    "full_ratio": lambda available, seed: full_ratio(available, 0.05, seed),
    "rates": lambda available, seed: missing_rates(available, [0.9, 0.5, 0.2, 0.7], seed),
    "brasyn": brasyn,
}


@pytest.fixture(params=PROTOCOLS)
def draw(request):
    return PROTOCOLS[request.param]


# ---- every protocol ---------------------------------------------------------------------------------------------


def test_no_case_loses_all_files_or_gains_one(draw):
    available = with_holes(300)
    kept = draw(available, 0)
    assert kept.keys() == available.keys()
    for case, row in kept.items():
        assert len(row) == 4 and any(row)
        assert all(has or not keeps for has, keeps in zip(available[case], row))
    assert kept != available


def test_a_seed_gives_the_same_table_in_any_order_and_another_seed_another(draw):
    available = complete(60)
    shuffled = random.Random(1).sample(list(available.items()), 60)
    assert table_text(draw(available, 3), NAMES) == table_text(draw(dict(shuffled), 3), NAMES)
    assert draw(available, 3) != draw(available, 4)


@pytest.mark.parametrize("protocol", ["rates", "brasyn"])
def test_adding_cases_does_not_change_others(protocol):
    few, many = PROTOCOLS[protocol](complete(20), 0), PROTOCOLS[protocol](complete(50), 0)
    assert {case: many[case] for case in few} == few


def test_draws_are_hashes_so_that_a_seed_means_the_same_everywhere():
    for case, row in brasyn(complete(50), 7).items():
        names = ["\x1f".join(("simulate_missing", "brasyn", "7", case, "file", str(m))) for m in range(4)]
        hashes = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
        assert row.index(False) == hashes.index(max(hashes))


# ---- full_ratio ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio, number, expected", [(0.01, 199, 2), (0.1, 199, 20), (0.5, 200, 100), (1, 7, 7), (0, 7, 0),
                                                     (0.01, 12, 1), (1e-9, 12, 1)])
def test_full_ratio_keeps_that_many_complete(ratio, number, expected):
    assert complete_cases(ratio, number) == expected
    assert sum(all(row) for row in full_ratio(complete(number), ratio, 5).values()) == expected


@pytest.mark.parametrize("modalities", [2, 4, 8])
def test_full_ratio_drops_a_uniform_number_and_then_uniform_modalities(modalities):
    kept = full_ratio(complete(MANY, modalities), 0.1, 0)
    incomplete = [row for row in kept.values() if not all(row)]
    assert len(incomplete) == MANY * 9 // 10
    dropped = Counter(modalities - sum(row) for row in incomplete)
    assert sorted(dropped) == list(range(1, modalities))
    if modalities > 2:
        assert chisquare(list(dropped.values())).pvalue > ALARM
    for number in dropped:
        patterns = Counter(row for row in incomplete if modalities - sum(row) == number)
        per_modality = [sum(n for row, n in patterns.items() if row[m]) for m in range(modalities)]
        for kept_by in per_modality:
            assert binomtest(kept_by, dropped[number], 1 - number / modalities).pvalue > ALARM
    if modalities == 4:
        pairs = Counter(row for row in incomplete if sum(row) == 2)
        assert len(pairs) == 6 and chisquare(list(pairs.values())).pvalue > ALARM


def test_which_cases_stay_complete_is_uniform_over_seeds():
    stays = Counter(case for seed in range(1500) for case, row in full_ratio(complete(6), 0.34, seed).items() if all(row))
    assert sum(stays.values()) == 3000 and chisquare(list(stays.values())).pvalue > ALARM


def test_ratios_of_one_seed_are_nested():
    available = complete(200)
    small, large = full_ratio(available, 0.01, 0), full_ratio(available, 0.5, 0)
    for case in available:
        assert all(large[case]) if all(small[case]) else all(large[case]) or large[case] == small[case]


def test_full_ratio_counts_real_holes_as_incomplete_cases():
    available = with_holes(150)  # 10 of them have all files
    kept = full_ratio(available, 0.04, 0)
    assert sum(all(row) for row in kept.values()) == 6
    singles = [case for case, row in available.items() if sum(row) == 1]
    assert len(singles) == 40 and all(kept[case] == available[case] for case in singles)
    with pytest.raises(NnmissError, match=r"15 that stay complete, but only 10 have all files"):
        full_ratio(available, 0.1, 0)


def test_cases_with_real_holes_keep_as_many_files_as_others_as_far_as_they_have_them():
    available = dict.fromkeys(complete(MANY), (True, True, True, False)) | {"whole": (True,) * 4}
    numbers = Counter(sum(row) for row in full_ratio(available, 1e-9, 0).values())
    assert numbers.pop(4) == 1
    assert sorted(numbers) == [1, 2, 3] and chisquare(list(numbers.values())).pvalue > ALARM


@pytest.mark.parametrize("ratio", [-0.1, 1.01, float("nan"), 50])
def test_a_bad_ratio_is_refused(ratio):
    with pytest.raises(NnmissError, match="0 to 1"):
        full_ratio(complete(5), ratio, 0)


# ---- rates -----------------------------------------------------------------------------------------------------


def redrawn(rates: list[float]) -> dict:
    """Pattern -> probability when a case is drawn anew until something is left, by counting all patterns."""
    weights = {}
    for pattern in product((False, True), repeat=len(rates)):
        weights[pattern] = 1.0
        for keeps, rate in zip(pattern, rates):
            weights[pattern] *= 1 - rate if keeps else rate
    del weights[(False,) * len(rates)]
    return {pattern: weight / sum(weights.values()) for pattern, weight in weights.items() if weight}


@pytest.mark.parametrize("rates", [[0.2, 0.4, 0.6, 0.8], [0.9, 0.9, 0.9, 0.9], [0.8, 0.5, 0.0, 0.0], [0.99, 0.5]])
def test_rates_are_missing_rates_and_empty_cases_are_drawn_anew(rates):
    counts = Counter(missing_rates(complete(MANY, len(rates)), rates, 0).values())
    expected = redrawn(rates)
    assert counts.keys() <= expected.keys()
    assert chisquare([counts[p] for p in expected], [MANY * p for p in expected.values()]).pvalue > ALARM


def test_rates_of_zero_take_nothing_and_very_high_ones_leave_one_file():
    available = with_holes(30)
    assert missing_rates(available, [0, 0, 0, 0], 0) == available
    assert {sum(row) for row in missing_rates(available, [1 - 1e-16] * 4, 0).values()} == {1}


def test_rates_are_named_by_modality():
    assert parse_rates(["T1CE=0.5", "flair=.25"], NAMES) == [0.25, 0, 0.5, 0]
    for wrong, message in ((["t3=0.5"], "Did you mean"), (["t1"], "MODALITY=RATE"), (["t1=much"], "no number"),
                           (["t1=0.1", "T1=0.2"], "twice")):
        with pytest.raises(NnmissError, match=message):
            parse_rates(wrong, NAMES)
    for rate in (1.0, -0.1, float("nan"), 80):
        with pytest.raises(NnmissError, match="below 1"):
            missing_rates(complete(5), [rate, 0, 0, 0], 0)


def test_a_modality_that_no_case_keeps_is_named():
    available = complete(3)
    with pytest.raises(NnmissError, match="takes t1, t2 from every one of the 3"):
        check_every_modality_left(available, dict.fromkeys(available, (True, False, True, False)), NAMES)


# ---- brasyn ----------------------------------------------------------------------------------------------------


def test_brasyn_drops_exactly_one_uniformly_and_leaves_incomplete_cases_alone():
    kept = brasyn(complete(MANY), 0)
    dropped = Counter(row.index(False) for row in kept.values())
    assert {sum(row) for row in kept.values()} == {3}
    assert chisquare([dropped[m] for m in range(4)]).pvalue > ALARM
    available = with_holes(30)
    kept = brasyn(available, 0)
    assert all((kept[case] == row) != all(row) for case, row in available.items())


# ---- files -----------------------------------------------------------------------------------------------------


def test_tables_are_read_back(tmp_path, draw):
    kept = draw(complete(20) | {"007": (True,) * 4, 'a "b", c': (True,) * 4}, 0)
    (tmp_path / "x.csv").write_text(table_text(kept, NAMES))
    assert read_missing_table(tmp_path / "x.csv", NAMES) == kept


def test_the_summary_counts_the_table():
    available = {"a": (True, True), "b": (True, True), "c": (True, False)}
    text = summary_text(available, {"a": (True, True), "b": (False, True), "c": (True, False)}, ["mri", "positron"])
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][2:5] == ["1", "of", "3"] and lines[2:4] == [["1:", "2"], ["2:", "1"]]
    assert lines[5:] == [["mri", "3", "2", "0.333"], ["positron", "2", "2", "0.333"]]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw folder with a phantom data set of 12 cases, 5 of them with files missing."""
    folder = tmp_path_factory.mktemp("raw")
    assert phantom.run(["-o", str(folder), "-d", "805", "--name", "Sim", "--num_training", "12", "--num_test", "1",
                        "--size", "24", "--missing_rate", "0.4"]) == 0
    return folder


@pytest.fixture
def dataset(raw, monkeypatch, tmp_path):
    """The data set's folder; tables are removed after each test."""
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    yield raw / "Dataset805_Sim"
    for file in (raw / "Dataset805_Sim" / "missing").glob("*"):
        file.unlink()


def command(*arguments: str) -> int:
    return simulate_missing.run(["-d", "805", *arguments])


def test_the_command_writes_a_table_that_training_can_apply(dataset, capsys):
    assert command("-n", "r25", "--protocol", "full_ratio", "--ratio", "0.25") == 0
    kept = read_missing_table(dataset / "missing" / "r25.csv", NAMES)
    files = {c.name: tuple(i in c.files for i in range(4)) for c in list_cases(dataset / "imagesTr", ".nii.gz")}
    assert apply_missing_table(files, kept) == kept == full_ratio(files, 0.25, 0)
    assert sum(all(row) for row in kept.values()) == 3
    record = json.loads((dataset / "missing" / "r25.json").read_text())
    assert record["protocol"] == "full_ratio" and record["ratio"] == 0.25 and record["seed"] == 0 and record["cases"] == 12
    assert record["sha256"] == hashlib.sha256((dataset / "missing" / "r25.csv").read_bytes()).hexdigest()
    printed = capsys.readouterr().out
    assert "complete cases: 3 of 12 (25.0%); 7 have all files" in printed and "--missing r25" in printed


def test_the_same_table_after_planning(dataset):
    rates = ("--protocol", "rates", "--rates", "flair=0.5", "T1=0.3")
    assert command("-n", "before", *rates) == 0
    assert plan_and_preprocess.run(["-d", "805", "-np", "1", "-pl", "nnMissPlannerTiny", "--no_pp", "--no_pbar"]) == 0
    assert command("-n", "after", *rates) == 0
    folder = dataset / "missing"
    assert (folder / "before.csv").read_bytes() == (folder / "after.csv").read_bytes()
    assert json.loads((folder / "after.json").read_text())["missing_rates"] == {"flair": 0.5, "t1": 0.3, "t1ce": 0, "t2": 0}


def test_a_table_is_replaced_only_when_asked(dataset):
    assert command("-n", "one", "--protocol", "brasyn") == 0
    before = (dataset / "missing" / "one.csv").read_bytes()
    with pytest.raises(NnmissError, match="exists already"):
        command("-n", "one", "--protocol", "brasyn", "--seed", "1")
    assert (dataset / "missing" / "one.csv").read_bytes() == before
    assert command("-n", "one", "--protocol", "brasyn", "--seed", "1", "--overwrite") == 0
    assert (dataset / "missing" / "one.csv").read_bytes() != before
    assert sorted(f.name for f in (dataset / "missing").iterdir()) == ["one.csv", "one.json"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x.csv", "x.JSON"])
def test_a_bad_name_is_refused(dataset, name):
    with pytest.raises(NnmissError, match="without folder or ending"):
        command("-n", name, "--protocol", "brasyn")


@pytest.mark.parametrize("arguments, message", [
    (("--protocol", "full_ratio", "--ratio", "2"), "0 to 1"),
    (("--protocol", "full_ratio", "--ratio", "0.9"), "11 that stay complete, but only 7 have all files"),
    (("--protocol", "rates", "--rates", "t9=0.2"), "Known names"),
    (("--protocol", "rates", "--rates", "t1=0.99999999"), "takes t1 from every one of the 12"),
])
def test_what_cannot_be_drawn_leaves_no_file(dataset, arguments, message):
    with pytest.raises(NnmissError, match=message):
        command("-n", "bad", *arguments)
    assert not list((dataset / "missing").glob("*"))


@pytest.mark.parametrize("arguments", [("full_ratio",), ("rates",), ("brasyn", "--ratio", "0.5"),
                                       ("full_ratio", "--ratio", "0.5", "--rates", "t1=0.5")])
def test_options_must_fit_the_protocol(dataset, arguments):
    with pytest.raises(SystemExit) as stop:
        command("-n", "x", "--protocol", *arguments)
    assert stop.value.code == 2


def test_unknown_data_sets_hidden_names_and_broken_folders_are_refused(dataset, tmp_path, monkeypatch):
    with pytest.raises(NnmissError, match="no data set has id 806"):
        simulate_missing.run(["-d", "806", "-n", "x", "--protocol", "brasyn"])
    (tmp_path / "Dataset807_Only").mkdir()
    with pytest.raises(NnmissError, match="has no raw data"):
        simulate_missing.run(["-d", "807", "-n", "x", "--protocol", "brasyn"])
    (tmp_path / "Dataset805_Sim" / "missing").mkdir(parents=True)
    (tmp_path / "Dataset805_Sim" / "missing" / "x.csv").write_text("case\n")
    with pytest.raises(NnmissError, match="training would read"):
        command("-n", "x", "--protocol", "brasyn")
    stray = dataset / "labelsTr" / "no_images.nii.gz"
    stray.write_bytes(b"")
    try:
        with pytest.raises(NnmissError, match="no_images"):
            command("-n", "y", "--protocol", "brasyn")
    finally:
        stray.unlink()
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(NnmissError, match="nnUNet_raw is not set"):
        command("-n", "y", "--protocol", "brasyn")


def test_a_fold_draws_for_its_own_training_cases(dataset, tmp_path):
    ratio = ("--protocol", "full_ratio", "--ratio", "0.01", "--fold")
    with pytest.raises(NnmissError, match="run nnmiss_plan_and_preprocess first"):
        command("-n", "f0", *ratio, "0")
    (tmp_path / "Dataset805_Sim").mkdir()
    cases = [case.name for case in list_cases(dataset / "imagesTr", ".nii.gz")]
    splits = [{"train": cases[:6], "val": cases[6:]}, {"train": cases[6:], "val": cases[:6]}]
    (tmp_path / "Dataset805_Sim" / "splits_final.json").write_text(json.dumps(splits))
    assert command("-n", "f1", *ratio, "1") == 0
    kept = read_missing_table(dataset / "missing" / "f1.csv", NAMES)
    assert sorted(kept) == cases[6:]
    assert sum(all(row) for row in kept.values()) == 1
    with pytest.raises(NnmissError, match="fold 2 does not exist"):
        command("-n", "f2", *ratio, "2")
