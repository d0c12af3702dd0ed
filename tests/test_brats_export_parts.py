"""Labels by name from any dataset.json, images of any layout, and uncertainty maps from probabilities."""
from __future__ import annotations

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from brats_folders import AFFINE, make_brats_folder, save

from nnmiss.brats_years import CHALLENGES, find_challenge
from nnmiss.errors import NnmissError
from nnmiss.export.export_folder import ExportOptions, export_predictions
from nnmiss.export.label_names import label_names, official_labels
from nnmiss.export.nifti_files import nifti_bytes, reference_header
from nnmiss.export.reference_images import case_and_kind, find_reference_images

CASE = "BraTS20_Validation_001"
SHAPE = (5, 4, 3)
REGIONS = {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing_tumor": [3]}
NAMES = {"ed": 1, "ncr": 2, "et": 3}
CHANNELS = {"0": "flair", "1": "t1", "2": "t1ce", "3": "t2"}


@pytest.mark.parametrize("labels, names", [
    (REGIONS, NAMES),
    ({"whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3, "ignore": 4, "background": 0}, NAMES),
    ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}, NAMES),
    ({"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}, {"ncr": 1, "ed": 2, "et": 3, "rc": 4}),
    ({"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}, {"ncr": 1, "ed": 2, "et": 3}),
])
def test_labels_by_name(labels, names):
    assert label_names({"labels": labels}) == names


@pytest.mark.parametrize("key", CHALLENGES, ids=lambda key: "-".join(map(str, key)))
def test_regions_of_every_challenge_name_its_labels(key):
    ours = CHALLENGES[key].consecutive_labels()
    regions = {region: [ours[m] for m in members] for region, members in CHALLENGES[key].regions().items()}
    assert label_names({"labels": {"background": 0, **regions}}) == ours
    official = official_labels({"labels": {"background": 0, **regions}}, CHALLENGES[key])
    assert dict(official.values()) == CHALLENGES[key].labels


@pytest.mark.parametrize("dataset_json, what", [
    ({"labels": {"background": 0, "lesion": 1}}, "label 1 stays without a name"),
    ({"labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3]}}, r"ncr would be the labels \[2, 3\]"),
    ({"labels": {"background": 0, "edema": 1, "vessel": 2}}, "'vessel'"),
    ({"labels": {"background": 0, "necrosis": 1, "net": 2}}, "means ncr"),
    ({"labels": REGIONS, "brats": {"label_names": {"ed": 1, "ncr": 2}}}, "do not cover"),
    ({"labels": REGIONS, "brats": {"label_names": {"ed": "1"}}}, "must hold"),
    ({"labels": {"background": 0}}, "no foreground"),
    ({}, "must map"),
])
def test_labels_without_a_name_are_refused_with_advice(dataset_json, what):
    with pytest.raises(NnmissError, match=what):
        label_names(dataset_json)


def test_a_challenge_without_any_of_the_labels():
    with pytest.raises(NnmissError, match="nothing in common"):
        official_labels({"labels": REGIONS}, find_challenge(2024, "MEN-RT"))


@pytest.mark.parametrize("year, ending", [(2018, ".nii.gz"), (2020, ".nii"), (2021, ".nii.gz"), (2023, ".nii.gz")])
def test_images_of_downloads(year, ending, tmp_path):
    cases = make_brats_folder(tmp_path, year, shape=SHAPE, ending=ending)
    images = find_reference_images(tmp_path)
    found = {case: images.of(case) for case in images.found}
    assert list(found) == sorted(cases)
    assert all(path.name.startswith(case) and "seg" not in path.name for case, path in found.items())


def test_images_of_raw_folders_and_odd_copies(tmp_path):
    image = np.ones(SHAPE, np.int16)
    for name in ("imagesTs/case_0001_0002.nii.gz", "labelsTr/case_0001.nii.gz", "imagesTs/._case_0001_0000.nii.gz",
                 "odd/BraTS2021_00495/BraTS2021_00495_flair.nii/00000057_brain_flair.nii",
                 "odd/BraTS2021_00495/BraTS2021_00495_t1.nii/00000057_brain_t1.nii", "meg/BraTS-MEN-RT-0001-1_t1c.nii.gz",
                 "meg/BraTS-MEN-RT-0001-1_gtv.nii.gz"):
        save(tmp_path / name, image)
    (tmp_path / "imagesTs" / "loop").symlink_to(tmp_path)
    images = find_reference_images(tmp_path)
    assert list(images.found) == ["BraTS-MEN-RT-0001-1", "BraTS2021_00495", "case_0001"]
    assert images.of("case_0001").name == "case_0001_0002.nii.gz" and images.of("BraTS2021_00495").is_file()
    save(tmp_path / "again" / "case_0001_0000.nii.gz", image)
    images = find_reference_images(tmp_path)
    with pytest.raises(NnmissError, match=r"it has images in .*again and in .*imagesTs"):
        images.of("case_0001")
    assert images.demanded == ["BraTS2021_00495"], "the others have a segmentation"
    assert images.of("BraTS2021_00495").is_file()


@pytest.mark.parametrize(("name", "case"), [
    ("A_0000", "A"), ("A_1_0003", "A_1"), ("A_flair", "A"), ("A-t2f", "A"), ("A_T1CE", "A"), ("A_t1_ce", "A"),
    ("A t2 flair", "A"), ("BraTS-GLI-00001-000-t1n", "BraTS-GLI-00001-000"), ("A_t1post", "A"), ("A_seg", None),
    ("A_gtv", None), ("A_t3", None), ("flair", None), ("BraTS2021_00001", None)])
def test_case_of_an_images_name(name, case):
    found, kind = case_and_kind(name)
    assert (None if kind == "label" else found) == case


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_no_images(name, tmp_path):
    with pytest.raises(NnmissError, match=r"does not exist|no image found"):
        find_reference_images(tmp_path / name)


def test_header_of_an_odd_image(tmp_path):
    """Big-endian, a fourth axis, an extension, pixdim[0] 0 (nibabel mends it when it loads): the position is kept."""
    image = nib.Nifti1Image(np.ones((*SHAPE, 1), ">i2"), AFFINE, nib.Nifti1Header(endianness=">"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"hello"))
    path = tmp_path / "odd.nii"
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[76:80] = bytes(4)
    path.write_bytes(raw)
    labels = np.arange(60, dtype=np.uint8).reshape(SHAPE)
    content = gzip.decompress(nifti_bytes(labels, reference_header(path)))
    assert len(content) == 352 + labels.size
    for start, stop in ((76, 108), (123, 124), (252, 328)):  # pixdim, units, qform and sform
        assert content[start:stop] == raw[start:stop]
    (tmp_path / "out.nii").write_bytes(content)
    result = nib.load(tmp_path / "out.nii")
    assert np.array_equal(np.asanyarray(result.dataobj), labels) and np.array_equal(result.affine, AFFINE)
    assert content == gzip.decompress(nifti_bytes(labels, reference_header(path)))


def write_case(root: Path, labels: np.ndarray, p: np.ndarray | None, affine: np.ndarray = AFFINE) -> None:
    """A prediction (x, y, z) and its probabilities (channels, x, y, z), as nnU-Net stores them."""
    save(root / "images" / f"{CASE}_flair.nii.gz", np.ones(labels.shape, np.int16), affine)
    save(root / "pred" / f"{CASE}.nii.gz", labels, affine)
    if p is not None:
        np.savez_compressed(root / "pred" / f"{CASE}.npz", probabilities=p.transpose(0, 3, 2, 1))


def exported(root: Path, dataset_json: dict) -> dict:
    content = {"channel_names": CHANNELS, "file_ending": ".nii.gz", **dataset_json}
    return export_predictions(root / "pred", root / "images", root / "out", find_challenge(2020), content,
                              ExportOptions(uncertainty=True))


def slow(p: float) -> int:
    """The definition, in Python's numbers."""
    return round(100 * (1 - abs(2 * float(p) - 1)))


@pytest.mark.parametrize("kind", ["sigmoid of regions", "softmax of labels", "turned by the reader"])
def test_uncertainty_maps(kind, tmp_path):
    rng = np.random.default_rng(1)
    if kind == "softmax of labels":
        dataset_json = {"labels": {"background": 0, "edema": 1, "necrosis": 2, "enhancing": 3}}
        p = rng.dirichlet(np.ones(4) / 4, SHAPE).transpose(3, 0, 1, 2).astype(np.float32)
        labels = p.argmax(0).astype(np.uint8)
        parts = {"whole": p[1] + p[2] + p[3], "core": p[2] + p[3], "enhance": p[3]}
    else:
        dataset_json = {"labels": REGIONS, "regions_class_order": [1, 2, 3]}
        p = rng.beta(0.4, 0.4, (3, *SHAPE)).astype(np.float32)
        labels = np.zeros(SHAPE, np.uint8)  # as nnU-Net paints regions, nested or not
        for value, channel in enumerate(p, start=1):
            labels[channel > 0.5] = value
        parts = {"whole": p[0], "core": p[1], "enhance": p[2]}
    stored = p
    if kind == "turned by the reader":
        dataset_json["overwrite_image_reader_writer"] = "NibabelIOWithReorient"
        stored = p[:, ::-1, ::-1]  # RAS, where AFFINE is LPS
    write_case(tmp_path, labels, stored)
    manifest = exported(tmp_path, dataset_json)
    assert not manifest["failures"]
    for name, values in parts.items():
        path = tmp_path / "out/submission" / f"{CASE}_unc_{name}.nii.gz"
        image = nib.load(path)
        assert image.get_data_dtype() == np.uint8 and np.array_equal(image.affine, AFFINE)
        assert np.asanyarray(image.dataobj).ravel().tolist() == [slow(v) for v in values.ravel()]
    written = json.loads((tmp_path / "out/manifest.json").read_text())["subsets"]["submission"]
    assert len(written["cases"][CASE]["files"]) == 4


def test_uncertainty_of_certain_and_undecided_voxels(tmp_path):
    p = np.broadcast_to(np.array([0, 1, 0.5, 0.75, 0.999], np.float32)[:, None, None], (3, *SHAPE))
    write_case(tmp_path, (p[0] > 0.5).astype(np.uint8) * 3, p)
    exported(tmp_path, {"labels": REGIONS})
    result = np.asanyarray(nib.load(tmp_path / "out/submission" / f"{CASE}_unc_core.nii.gz").dataobj)
    assert result[:, 0, 0].tolist() == [0, 0, 100, 50, 0]


@pytest.mark.parametrize("p, what", [
    (None, "--save_probabilities"),
    (np.full((2, *SHAPE), 0.9, np.float32), "expected floats of 3 channels"),
    (np.full((3, *SHAPE), 7, np.float32), "expected probabilities 0 to 1"),
    (np.zeros((3, *SHAPE), np.float32), "of another prediction"),
])
def test_probabilities_that_are_not_the_predictions(p, what, tmp_path):
    write_case(tmp_path, np.full(SHAPE, 3, np.uint8), p)
    assert what in exported(tmp_path, {"labels": REGIONS})["failures"][0]["reason"]
