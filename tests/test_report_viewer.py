"""The viewer's data without a browser: geometry after cropping, windows, size limit, bad files, names that are markup."""
from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnmiss.errors import NnmissError
from nnmiss.report import viewer
from nnmiss.report.viewer import ASSETS, NIIVUE, viewer_section
from nnmiss.report.viewer_arrays import Piece, common_box, halved, nifti_bytes, window
from nnmiss.report.viewer_images import ViewerCase, read_case_volumes

OBLIQUE = np.array([[-0.8, 0.9, 0.0, 90.0], [0.6, 1.2, 0.0, -126.0], [0.0, 0.0, 2.0, -72.0], [0, 0, 0, 1]])
ROTATED = np.array([[0.0, 0.0, 1.5, -20.0], [-1.0, 0.0, 0.0, 31.0], [0.0, 2.0, 0.0, 7.0], [0, 0, 0, 1]])
LIMIT = 60_000_000


class Blocks(HTMLParser):
    """Collects the text of all <script> blocks by id, as a browser would see them, and counts the sections."""

    def __init__(self, page: str):
        super().__init__()
        self.found, self.ids, self._open = {}, [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.ids.append(dict(attributes).get("id"))
        self._open = dict(attributes).get("id") if tag == "script" else None

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open:
            self.found[self._open] = self.found.get(self._open, "") + data

    def index(self) -> dict:
        return json.loads(self.found["viewer-index"])

    def image(self, block: str) -> nibabel.Nifti1Image:
        return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(self.found[block])))


def write(path: Path, array: np.ndarray, affine: np.ndarray = ROTATED) -> Path:
    nibabel.Nifti1Image(array, affine).to_filename(path)
    return path


def make_case(folder: Path, name: str = "case_a", affine: np.ndarray = ROTATED, noise: int = 0) -> ViewerCase:
    """Two modalities with a brain of random intensities, truth and two predictions, 24 x 20 x 18 voxels."""
    rng = np.random.default_rng(noise)
    folder.mkdir(exist_ok=True)
    files = {}
    for modality in ("flair", "t1"):
        array = np.zeros((24, 20, 18), dtype=np.float32)
        array[6:17, 5:14, 4:15] = rng.uniform(100, 900, (11, 9, 11))
        files[modality] = write(folder / f"{name}_{modality}.nii.gz", array, affine)
    gt = np.zeros((24, 20, 18), dtype=np.uint8)
    gt[8:12, 7:10, 6:9] = 1
    predictions = {}
    for value, subset in ((1, "flair"), (2, "flair+t1")):
        predictions[subset] = write(folder / f"{name}_{subset}.nii.gz", gt * np.uint8(value), affine)
    return ViewerCase(name, files, write(folder / f"{name}_gt.nii.gz", gt, affine), {"all_stage": predictions})


@pytest.mark.parametrize("affine", [ROTATED, OBLIQUE, np.diag([-1.0, -1.0, 1.0, 1.0])])
def test_a_point_in_space_keeps_its_value(tmp_path, affine):
    case = make_case(tmp_path, affine=affine)
    section = viewer_section([case], LIMIT)
    page = Blocks(section.html)
    entry = page.index()["cases"][0]
    checked = 0
    for block, file in ((entry["images"]["t1"], case.images["t1"]), (entry["gt"], case.gt)):
        shown, original = page.image(block), nibabel.load(file)
        values = np.asarray(shown.dataobj)
        assert values.dtype == np.uint8 and values.shape == (15, 13, 15)  # 11 x 9 x 11 and the margin of 2
        expected = window(np.asarray(original.dataobj)) if "t1" in file.name else np.asarray(original.dataobj)
        for voxel in np.argwhere(expected):
            world = original.affine @ [*voxel, 1]
            there = np.linalg.inv(shown.affine) @ world
            np.testing.assert_allclose(there, np.rint(there), atol=1e-3)
            assert values[tuple(np.rint(there[:3]).astype(int))] == expected[tuple(voxel)]
            checked += 1
    assert checked > 1000
    focus = np.linalg.inv(nibabel.load(case.gt).affine) @ [*entry["focus"], 1]
    assert np.asarray(nibabel.load(case.gt).dataobj)[tuple(np.rint(focus[:3]).astype(int))] == 1


def test_labels_outside_the_brain_are_not_cut_off(tmp_path):
    case = make_case(tmp_path)
    far = np.zeros((24, 20, 18), dtype=np.uint8)
    far[0, 19, 17] = 3
    case.predictions["all_stage"]["t1"] = write(tmp_path / "far.nii.gz", far)
    volumes = read_case_volumes(case)
    assert volumes.predictions["all_stage"]["t1"].sum() == 3 and volumes.labels() == {1, 2, 3}
    assert {a.shape for a in [*volumes.images.values(), volumes.gt]} == {volumes.predictions["all_stage"]["t1"].shape}


def test_many_label_maps_take_the_room_of_what_is_in_them(tmp_path):
    case = make_case(tmp_path)
    labels = np.zeros((80, 80, 80), dtype=np.uint8)
    labels[30:40, 30:40, 30:40] = 1
    case.images = {"flair": write(tmp_path / "large.nii.gz", labels * np.float32(7))}
    case.gt, case.predictions = None, {"all_stage": {str(i): write(tmp_path / f"l{i}.nii.gz", labels) for i in range(40)}}
    tracemalloc.start()
    volumes = read_case_volumes(case)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * labels.size  # bytes: of the image as it is read; the maps as they are would be 40 of these
    assert volumes.predictions["all_stage"]["39"].shape == (14, 14, 14) and volumes.labels() == {1}
    assert all(array.base is None for array in volumes.predictions["all_stage"].values())  # no view keeps the whole


def test_empty_volumes_are_shown_whole():
    empty, full = Piece.of(np.zeros((5, 6, 7), np.uint8)), np.zeros((5, 6, 7), np.uint8)
    full[4, 0, 3] = 2
    assert common_box([empty]) == (slice(0, 5), slice(0, 6), slice(0, 7))
    box = common_box([empty, Piece.of(full)])
    assert box == (slice(2, 5), slice(0, 3), slice(1, 6))
    np.testing.assert_array_equal(Piece.of(full).within(box), full[box])
    assert empty.within(box).shape == (3, 3, 5) and not empty.within(box).any()


def test_opens_where_most_of_the_truth_is(tmp_path):
    """Two lesions whose largest cuts along the three axes lie apart: the point must be inside one of them."""
    case = make_case(tmp_path, affine=np.eye(4))
    labels = np.zeros((24, 20, 18), dtype=np.uint8)
    labels[7, 6:13, 5], labels[9:15, 7:10, 12] = 1, 2
    write(case.gt, labels, np.eye(4))
    x, y, z = np.rint(read_case_volumes(case).focus_mm).astype(int)  # the voxel, as the affine is the identity
    assert z == 12 and labels[x, y, z] == 2


def test_window_keeps_background_and_spans_the_percentiles():
    rng = np.random.default_rng(0)
    values = np.zeros((30, 30, 30))
    values[5:25, 5:25, 5:25] = rng.normal(-3, 50, (20, 20, 20))  # negative intensities too, as after z-scoring
    shown = window(values)
    assert (shown[values == 0] == 0).all() and (shown[values != 0] > 0).all()
    low, high = np.percentile(values[values != 0], (0.5, 99.5))
    assert (shown[(values != 0) & (values <= low)] == 1).all() and (shown[values >= high] == 255).all()
    middle = (values != 0) & (values > low) & (values < high)
    assert np.abs(shown[middle] - (1 + 254 * (values[middle] - low) / (high - low))).max() <= 0.51
    assert (np.diff(shown[middle].astype(int)[np.argsort(values[middle])]) >= 0).all()


def test_window_of_odd_volumes():
    assert not window(np.zeros((4, 4, 4))).any() and not window(np.full((4, 4, 4), np.nan)).any()
    constant = np.zeros((4, 4, 4))
    constant[1:3, 1:3, 1:3] = 7.5
    assert set(np.unique(window(constant))) == {0, 1}
    ct = np.random.default_rng(0).uniform(-1000, 1000, (9, 9, 9))  # without zero at the corners, zero is an intensity
    ct[4, 4, 4] = 0
    assert 120 < window(ct)[4, 4, 4] < 136


def test_halving_averages_eight_voxels_and_keeps_their_middle():
    rng = np.random.default_rng(1)
    array = rng.integers(0, 256, (5, 6, 7), dtype=np.uint8)
    small, affine = halved(array, ROTATED)
    assert small.shape == (3, 3, 4)
    for voxel in np.ndindex(2, 3, 3):  # those that need no padding
        corner = 2 * np.array(voxel)
        cube = array[tuple(slice(c, c + 2) for c in corner)]
        assert abs(small[voxel] - cube.mean()) <= 0.5
        np.testing.assert_allclose(affine @ [*voxel, 1], ROTATED @ [*(corner + 0.5), 1])


def test_limit_halves_then_leaves_out_and_says_so(tmp_path, monkeypatch):
    cases = [make_case(tmp_path, f"case_{k}", noise=k) for k in range(3)]
    for k, case in enumerate(cases):  # large enough that images decide the size
        rng = np.random.default_rng(k)
        for modality in case.images:
            array = np.pad(rng.uniform(1, 9, (60, 60, 60)).astype(np.float32), 2)
            case.images[modality] = write(tmp_path / f"{case.name}_{modality}.nii.gz", array)
        labels = np.zeros((64, 64, 64), dtype=np.uint8)
        labels[10:20, 10:20, 10:20] = 1
        write(case.gt, labels)
        case.predictions = {"all_stage": {"flair": write(tmp_path / f"{case.name}_flair_p.nii.gz", labels)}}
    whole = viewer_section(cases, LIMIT)
    assert whole.cases == ["case_0", "case_1", "case_2"] and not whole.notes
    one = whole.bytes - viewer_section(cases[:2], LIMIT).bytes
    limit = whole.bytes - 2 * one + int(0.2 * one)  # half the resolution is an eighth of the size
    section = viewer_section(cases, limit)
    assert section.bytes <= limit and section.cases == ["case_0", "case_1"]
    assert ["half the resolution (labels at the full one)" in n for n in section.notes] == [True, False]
    assert section.notes[1].startswith("case case_2 is not shown: it does not fit into what is left of the limit of")
    page = Blocks(section.html)
    entry = page.index()["cases"][1]
    assert entry["halved"] and page.image(entry["images"]["t1"]).shape == (32, 32, 32)
    assert page.image(entry["gt"]).shape == (64, 64, 64)
    assert all(note in section.html for note in section.notes)
    read = []
    monkeypatch.setattr(viewer, "read_case_volumes", lambda case: read.append(case.name) or read_case_volumes(case))
    left_out = viewer_section([*cases, *cases], whole.bytes - 3 * one + int(0.05 * one))  # none fits
    assert read == ["case_0"] and left_out.cases == [] and len(left_out.notes) == 6  # the others are not read in vain
    tiny = viewer_section(cases, 1000)
    assert tiny.cases == [] and tiny.bytes < 2000 and len(tiny.notes) == 3 and "No case can be shown" in tiny.html


def test_bad_files_are_left_out_and_named(tmp_path):
    case = make_case(tmp_path)
    good = case.predictions["all_stage"]["flair"]
    truncated = tmp_path / "truncated.nii.gz"
    truncated.write_bytes(good.read_bytes()[:-40])
    text = tmp_path / "text.nii.gz"
    text.write_text("no image")
    shifted = ROTATED.copy()
    shifted[0, 3] += 1
    array = np.asarray(nibabel.load(good).dataobj)
    bad = {
        "truncated.nii.gz": truncated,
        "text.nii.gz": text,
        "shifted.nii.gz": write(tmp_path / "shifted.nii.gz", array, shifted),
        "small.nii.gz": write(tmp_path / "small.nii.gz", array[:-1]),
        "flat.nii.gz": write(tmp_path / "flat.nii.gz", array[:, :, 0]),
        "four.nii.gz": write(tmp_path / "four.nii.gz", np.stack([array, array], -1)),
        "soft.nii.gz": write(tmp_path / "soft.nii.gz", array * np.float32(0.5)),
        "many.nii.gz": write(tmp_path / "many.nii.gz", array * np.int16(300)),
        "nan.nii.gz": write(tmp_path / "nan.nii.gz", np.where(array > 0, np.nan, array).astype(np.float32)),
        "picture.png": tmp_path / "picture.png",
        "absent.nii.gz": tmp_path / "absent.nii.gz",
    }
    case.predictions["all_stage"].update(bad)
    section = viewer_section([case], LIMIT)
    assert list(Blocks(section.html).index()["cases"][0]["predictions"]["all_stage"]) == ["flair", "flair+t1"]
    assert len(section.notes) == len(bad)
    for note, name in zip(section.notes, bad):
        assert note.startswith(f"case case_a: the prediction of all_stage with {name} is not shown: ") and name in note
    case.images["t1"] = truncated
    assert list(read_case_volumes(case).images) == ["flair"]
    case.images = {"t1": truncated, "t2": tmp_path / "absent.nii.gz"}
    with pytest.raises(NnmissError, match=r"case case_a is not shown.*truncated.*not found"):
        read_case_volumes(case)
    other = make_case(tmp_path, "case_b")
    section = viewer_section([case, other, ViewerCase("case_c", {})], LIMIT)  # the good case is still there
    assert section.cases == ["case_b"] and len(section.notes) == 2 and "no image of it was found" in section.notes[1]


def test_headers_that_only_differ_between_qform_and_sform(tmp_path):
    """A prediction written by ITK has the image's qform twice; nibabel would find another affine than the image's."""
    case = make_case(tmp_path)
    image = nibabel.load(case.images["flair"])
    other = ROTATED.copy()
    other[:3, 3] += 40
    image.set_sform(other, code=1)
    image.set_qform(ROTATED, code=1)
    for modality in case.images:
        case.images[modality] = tmp_path / f"two_forms_{modality}.nii.gz"
        image.to_filename(case.images[modality])
    read = sitk.ReadImage(str(case.images["flair"]))
    sitk.WriteImage(sitk.Cast(read > 500, sitk.sitkUInt8), str(tmp_path / "itk.nii.gz"))
    case.gt, case.predictions = tmp_path / "itk.nii.gz", {}
    volumes = read_case_volumes(case)
    assert volumes.gt is not None and volumes.notes == []


def test_names_cannot_break_the_page(tmp_path):
    evil = '</script><img src=x onerror=alert(1)><!-- "\''
    case = make_case(tmp_path)
    case.name = evil
    case.images = {"<b>flair": case.images["flair"], "t1": case.images["t1"]}
    case.predictions = {evil: {"flair": case.gt, evil: tmp_path / "absent.nii.gz"}}
    case.scores = {evil: {"flair": evil}}
    section = viewer_section([case], LIMIT, {1: (evil, (1, 2, 3))})
    page = Blocks(section.html)
    index = page.index()
    assert section.cases == [evil] and index["cases"][0]["name"] == evil and index["colours"][0]["name"] == evil
    assert index["cases"][0]["predictions"][evil]["flair"]["score"] == evil
    assert "<img" not in section.html and "<b>" not in section.html
    assert section.html.count("</section>") == 1 and len(page.ids) == len(set(page.ids) - {None}) + page.ids.count(None)


def test_colours_of_all_labels(tmp_path):
    section = viewer_section([make_case(tmp_path)], LIMIT, {1: ("edema", (0, 255, 0)), 4: ("core", (255, 0, 0))})
    colours = Blocks(section.html).index()["colours"]
    assert [(c["label"], c["name"]) for c in colours] == [(1, "edema"), (2, "label 2"), (4, "core")]
    assert colours[0]["rgb"] == [0, 255, 0] and len({tuple(c["rgb"]) for c in colours}) == 3


def test_modalities_of_all_cases_in_channel_order(tmp_path):
    first, second = make_case(tmp_path, "case_a"), make_case(tmp_path, "case_b")
    del first.images["flair"]
    second.predictions["all_stage"]["flair+t1+t2"] = second.gt
    assert Blocks(viewer_section([first, second], LIMIT).html).index()["modalities"] == ["flair", "t1", "t2"]


def test_files_are_the_same_every_time_and_nothing_points_outside(tmp_path):
    case = make_case(tmp_path)
    section = viewer_section([case], LIMIT)
    assert section.html == viewer_section([case], LIMIT).html
    assert section.bytes == len(section.html.encode()) and section.html.isascii() is False
    assert not re.search(r'(src|href|url\()\s*=?\s*["\']?(https?:)?//', section.html)
    array = np.zeros((3, 3, 3), dtype=np.uint8)
    assert nifti_bytes(array, ROTATED) == nifti_bytes(array, ROTATED)


def test_the_bundled_niivue_is_the_one_that_the_readme_names():
    digest = hashlib.sha256(gzip.decompress((ASSETS / NIIVUE).read_bytes())).hexdigest()
    assert digest in (ASSETS / "README.md").read_text()
    assert "Copyright (c) 2021, Niivue" in (ASSETS / "niivue-LICENSE.txt").read_text()
