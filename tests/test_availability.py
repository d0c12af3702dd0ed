"""Subsets, their names, tables of availability, and modality dropout."""
from __future__ import annotations

import json

import pytest
import torch

from nnmiss.availability import (
    all_subsets,
    apply_missing_table,
    draw_present,
    match_modality,
    modality_names,
    parse_subset,
    read_availability,
    read_missing_table,
    reported_subsets,
    subset_name,
)
from nnmiss.errors import NnmissError
from nnmiss.seeding import torch_generator

NAMES = ["flair", "t1", "t1ce", "t2"]


def test_subsets_come_in_the_row_order_of_metakd_table_1():
    names = [subset_name(s, NAMES) for s in all_subsets(4)]
    assert names == ["flair", "t1", "t1ce", "t2", "flair+t1", "flair+t1ce", "flair+t2", "t1+t1ce", "t1+t2", "t1ce+t2",
                     "flair+t1+t1ce", "flair+t1+t2", "flair+t1ce+t2", "t1+t1ce+t2", "flair+t1+t1ce+t2"]


@pytest.mark.parametrize("m", [2, 3, 5, 8])
def test_there_are_two_to_the_m_minus_one_distinct_subsets(m):
    subsets = all_subsets(m)
    assert len(set(subsets)) == len(subsets) == 2**m - 1
    assert all(any(s) for s in subsets)


def test_reports_of_many_modalities_keep_singles_all_but_one_and_all():
    sizes = sorted(sum(s) for s in reported_subsets(8))
    assert sizes == [1] * 8 + [7] * 8 + [8]


@pytest.mark.parametrize("subset", all_subsets(4))
def test_parsing_a_subset_name_gives_the_subset_back(subset):
    assert parse_subset(subset_name(subset, NAMES).upper(), NAMES) == subset


def test_unknown_modality_names_the_nearest():
    with pytest.raises(NnmissError, match=r"t1c'.*Did you mean t1ce or t1"):
        match_modality("t1c", NAMES)


@pytest.mark.parametrize("channels", [{"0": "a"}, {"0": "a", "1": "A"}, {"0": "a+b", "1": "c"}, {"1": "a", "2": "b"}, []])
def test_bad_channel_names_are_refused(channels):
    with pytest.raises(NnmissError):
        modality_names({"channel_names": channels})


def test_ten_channels_keep_numeric_order():
    names = {str(i): f"m{i}" for i in range(12)}
    assert modality_names({"channel_names": names})[9:] == ["m9", "m10", "m11"]


def test_dropout_keeps_a_nonempty_subset_of_what_is_available():
    generator = torch_generator(0, "dropout")
    available = torch.rand(2000, 5, generator=generator) < 0.5
    available[:, 2] |= ~available.any(1)
    present = draw_present(available, generator)
    assert present.any(1).all()
    assert not (present & ~available).any()


def test_dropout_keeps_one_to_all_equally_often_and_treats_modalities_alike():
    present = draw_present(torch.ones(20000, 4, dtype=torch.bool), torch_generator(1))
    counts = torch.bincount(present.sum(1), minlength=5)[1:] / 20000
    assert torch.allclose(counts, torch.full((4,), 0.25), atol=0.02)
    assert torch.allclose(present.float().mean(0), torch.full((4,), 0.625), atol=0.02)


def test_dropout_counts_what_a_case_has():
    available = torch.tensor([[True, True, False, False]]).repeat(20000, 1)
    kept = draw_present(available, torch_generator(2)).sum(1)
    assert abs((kept == 1).float().mean() - 0.5) < 0.02


def test_the_same_generator_state_draws_the_same_subsets():
    available = torch.ones(8, 4, dtype=torch.bool)
    draws = [draw_present(available, torch_generator(3, "train", epoch)) for epoch in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_availability_of_other_modalities_is_refused(tmp_path):
    (tmp_path / "availability.json").write_text(json.dumps({"modalities": ["a", "b"], "cases": {"x": [True, False]}}))
    assert read_availability(tmp_path, ["a", "b"]) == {"x": (True, False)}
    with pytest.raises(NnmissError, match="run nnmiss_plan_and_preprocess again"):
        read_availability(tmp_path, NAMES)


def write_table(path, *rows):
    path.write_text("\n".join(["case,flair,t1,t1ce,t2", *rows]))
    return path


def test_a_missingness_table_is_anded_with_the_files(tmp_path):
    kept = read_missing_table(write_table(tmp_path / "a.csv", "1,1,0,1,0", "b,0,0,0,1"), NAMES)
    assert kept == {"1": (True, False, True, False), "b": (False, False, False, True)}
    available = {"1": (True, True, False, True), "b": (True,) * 4, "c": (True, False, False, False)}
    assert apply_missing_table(available, kept) == {
        "1": (True, False, False, False), "b": (False, False, False, True), "c": (True, False, False, False)}


@pytest.mark.parametrize("rows, message", [
    (["a,1,1,1,2"], "case a has cells other than 0 and 1"),
    (["a,0,0,0,0"], "keep no modality"),
    (["a,1,1,1,1", "a,1,0,0,0"], "stands there twice"),
])
def test_bad_missingness_tables_are_named(tmp_path, rows, message):
    with pytest.raises(NnmissError, match=message):
        read_missing_table(write_table(tmp_path / "a.csv", *rows), NAMES)


def test_a_table_that_takes_away_everything_a_case_has_is_refused():
    with pytest.raises(NnmissError, match="case_7"):
        apply_missing_table({"case_7": (True, False)}, {"case_7": (False, True)})


def test_a_case_may_be_called_na(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("case,a,b\nNA,1,0\nnull,0,1\n")
    assert read_missing_table(path, ["a", "b"]) == {"NA": (True, False), "null": (False, True)}
