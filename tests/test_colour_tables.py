"""Names and colours of labels, and the ITK-SNAP and 3D Slicer tables, read back by the rules of their formats."""
from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest
from skimage.color import rgb2lab

from nnmiss.brats_years import CHALLENGES
from nnmiss.errors import NnmissError
from nnmiss.evaluation.predictions import find_predictions
from nnmiss.export.colour_tables import COLOURS, label_colours, write_colour_tables

BRATS_REGIONS = {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing_tumor": [3]}
# What a dichromat sees: linear RGB -> linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
DICHROMATS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def read_itksnap(path):
    """index -> (RGB, alpha, visible, mesh, name), by the rules in the file's own header."""
    rows = {}
    lines = path.read_text().splitlines()
    assert lines[1] == "# ITK-SnAP Label Description File"
    for line in lines:
        if line.startswith("#"):
            continue
        match = re.fullmatch(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([01])\s+([01])\s+"([^"]*)"', line)
        assert match, line
        index, *rgb = map(int, match.groups()[:4])
        assert index not in rows and all(0 <= c <= 255 for c in rgb) and 0 <= float(match[5]) <= 1
        rows[index] = (tuple(rgb), float(match[5]), match[6], match[7], match[8])
    return rows


def read_slicer(path):
    """index -> (name, RGB, opacity): six values a line, separated by blanks."""
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# Color table file")
    rows = {}
    for line in lines:
        if not line.startswith("#"):
            index, name, *colour = line.split(" ")
            assert len(colour) == 4 and all(0 <= int(c) <= 255 for c in colour)
            rows[int(index)] = (name, tuple(map(int, colour[:3])), int(colour[3]))
    assert lines[1] == f"# {len(rows)} values"
    return rows


def test_brats_regions_give_the_three_labels():
    assert label_colours({"labels": BRATS_REGIONS}) == {1: ("ed", COLOURS["ed"]), 2: ("ncr", COLOURS["ncr"]),
                                                         3: ("et", COLOURS["et"])}


@pytest.mark.parametrize("challenge", CHALLENGES.values(), ids=lambda c: c.title)
def test_every_challenge_has_its_names_and_colours(challenge):
    numbers = challenge.consecutive_labels()
    regions = {region: [numbers[n] for n in names] for region, names in challenge.regions().items()}
    found = label_colours({"labels": {"background": 0, **regions}, "brats": {"label_names": numbers}})
    assert found == {value: (name, COLOURS[name]) for name, value in numbers.items()}


@pytest.mark.parametrize(("labels", "names"), [
    ({"background": 0, "edema": 2, "necrotic core": 1, "ET": 3}, ["ncr", "ed", "et"]),
    ({"background": 0, "liver": 1, "vessel": 2}, ["liver", "vessel"]),
    ({"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}, ["rest of kidney", "tumor", "rest of masses"]),
    ({"background": 0, "organ": [1, 2, 3], "lesions": [2, 3]}, ["rest of organ", "label 2", "label 3"]),
    ({"background": 0, "lesion": 1, "ignore": 2}, ["lesion", "ignore"]),
    ({"background": 0, "ignore": 1}, ["ignore"]),
])
def test_names_of_other_data_sets(labels, names):
    found = label_colours({"labels": labels})
    assert list(found) == list(range(1, len(names) + 1))
    assert [name for name, _ in found.values()] == names
    assert len({rgb for _, rgb in found.values()}) == len(names)


def test_twenty_labels_have_twenty_colours_and_more_do_not_fail():
    for number in (10, 20, 25):
        found = label_colours({"labels": {"background": 0, **{f"organ {i}": i for i in range(1, number + 1)}}})
        assert len({rgb for _, rgb in found.values()}) == min(number, 20)
        assert all(isinstance(c, int) for _, rgb in found.values() for c in rgb)


def test_labels_of_another_form_are_refused():
    for labels in (None, ["a"], {"a": "one"}):
        with pytest.raises(NnmissError, match="must map names to integers"):
            label_colours({"labels": labels})


@pytest.mark.parametrize("vision", ["normal", *DICHROMATS])
def test_labels_of_one_challenge_are_told_apart(vision):
    """At least 15 units of CIE Lab between any two (2.3 is just noticeable), for dichromats too."""
    srgb = {name: np.array(rgb) / 255 for name, rgb in COLOURS.items()}
    linear = {n: np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for n, c in srgb.items()}
    seen = {n: np.clip(np.array(DICHROMATS.get(vision, np.eye(3))) @ c, 0, 1) for n, c in linear.items()}
    back = {n: np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055) for n, c in seen.items()}
    lab = {n: rgb2lab(c.reshape(1, 1, 3)).ravel() for n, c in back.items()}
    for challenge in CHALLENGES.values():
        for a, b in combinations(challenge.labels, 2):
            assert np.linalg.norm(lab[a] - lab[b]) > 15, (challenge.title, a, b)


def test_the_files_can_be_read_back(tmp_path):
    dataset_json = {"labels": {"background": 0, 'the "odd"  label\n': 1, "edema": 2, "ignore": 3}}
    colours = label_colours(dataset_json)
    paths = write_colour_tables(tmp_path, dataset_json)
    assert [p.name for p in paths] == ["labels_itksnap.txt", "labels_slicer.ctbl"]
    assert sorted(tmp_path.iterdir()) == paths  # and nothing unfinished
    snap, slicer = read_itksnap(paths[0]), read_slicer(paths[1])
    assert snap.pop(0) == ((0, 0, 0), 0, "0", "0", "Clear Label")
    assert slicer.pop(0) == ("Background", (0, 0, 0), 0)
    assert {i: row[0] for i, row in snap.items()} == {i: rgb for i, (_, rgb) in colours.items()}
    assert {row[1:4] for row in snap.values()} == {(1.0, "1", "1")}
    assert snap[1][4] == "the 'odd' label" and slicer[1][0] == "the_'odd'_label"
    assert {i: row[1:] for i, row in slicer.items()} == {i: (rgb, 255) for i, (_, rgb) in colours.items()}


def test_canonical_labels_are_written_out(tmp_path):
    snap, slicer = write_colour_tables(tmp_path, {"labels": BRATS_REGIONS})
    assert [row[4] for row in read_itksnap(snap).values()] == ["Clear Label", "edema (ed)", "necrotic core (ncr)",
                                                               "enhancing tumor (et)"]
    assert read_slicer(slicer)[3][0] == "enhancing_tumor_(et)"


def test_they_are_no_predictions(tmp_path):
    write_colour_tables(tmp_path, {"labels": BRATS_REGIONS})
    (tmp_path / "flair").mkdir()
    (tmp_path / "flair" / "c0.nii.gz").touch()
    found = find_predictions(tmp_path, ["flair", "t1"], ".nii.gz")
    assert [p.case for p in found.predictions] == ["c0"] and not found.errors and not found.notes
