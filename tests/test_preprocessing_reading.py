"""Listing and reading raw cases with holes, and everything that is refused on the way."""
from __future__ import annotations

import gzip
import json
import operator
import os
import signal
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from skimage import io as skimage_io

from nnmiss.atomic_files import is_running
from nnmiss.errors import NnmissError
from nnmiss.preprocessing.case_pool import run_on_cases
from nnmiss.preprocessing.intensity_statistics import channel_statistics, sample_foreground
from nnmiss.preprocessing.preprocessor import check_resampling
from nnmiss.preprocessing.raw_dataset import RawCase, list_cases, list_training_cases
from nnmiss.preprocessing.read_case import read_case, read_label
from nnmiss.preprocessing.splits_file import choose_splits, install_splits, read_splits
from nnmiss.preprocessing.subset_report import ROWS_SHOWN, count_subsets, write_subset_report
from nnmiss.preprocessing.voxel_grid import VoxelGrid, grid_difference
from nnmiss.preprocessing.whole_file import first_look, why_not_whole

MODALITIES = ["flair", "t1", "t1ce"]
SHAPE = (6, 7, 8)


def write_image(path, array, origin=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 2.0)):
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), True)
    return str(path)


def noise(seed=0):
    return np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32)


@pytest.fixture
def case(tmp_path):
    """A case with flair and t1ce, t1 absent, and a label."""
    files = {c: write_image(tmp_path / f"a_000{c}.nii.gz", noise(c)) for c in (0, 2)}
    seg = np.zeros(SHAPE, dtype=np.uint8)
    seg[2:4, 2:4, 2:4] = 1
    return RawCase("a", files, write_image(tmp_path / "a.nii.gz", seg))


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def test_cases_are_the_union_of_image_and_label_names(tmp_path):
    touch(tmp_path / "im", "b_0002.nii.gz", "b_0000.nii.gz", "c_0001.nii.gz", "._b_0000.nii.gz", "notes.txt")
    touch(tmp_path / "la", "a.nii.gz", "b.nii.gz")
    cases = list_cases(tmp_path / "im", ".nii.gz", tmp_path / "la")
    assert [c.name for c in cases] == ["a", "b", "c"]
    assert [list(c.files) for c in cases] == [[], [0, 2], [1]]
    assert [c.label is not None for c in cases] == [True, True, False]
    assert [c.name for c in list_cases(tmp_path / "im", ".nii.gz")] == ["b", "c"]


def test_image_names_without_channel_index_are_refused(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "seg.nii.gz")
    with pytest.raises(NnmissError, match=r"case seg: seg\.nii\.gz lacks the channel index"):
        list_cases(tmp_path, ".nii.gz")
    assert [bool(c.problems) for c in list_cases(tmp_path, ".nii.gz", strict=False)] == [False, True]


@pytest.mark.parametrize("name", [
    "a_0001.nii", "a_0001.NII.GZ", "a_0001.nii.gz.part", "a_0001", "a_0001.mha", "a_001.nii.gz", "A_0001.nii.gz",
    "a _0001.nii.gz", "a_0000 (1).nii.gz"])
def test_a_misnamed_file_stops_its_case_and_no_other(tmp_path, name):
    touch(tmp_path, "a_0000.nii.gz", "b_0000.nii.gz", "banana_0000.nii.gz", name)
    cases = {c.name: c for c in list_cases(tmp_path, ".nii.gz", strict=False)}
    assert cases["a"].problems and not cases["b"].problems and not cases["banana"].problems
    with pytest.raises(NnmissError, match="case a: "):
        read_case(cases["a"], MODALITIES, SimpleITKIO)
    with pytest.raises(NnmissError, match="misnamed"):
        list_cases(tmp_path, ".nii.gz")


def test_names_that_are_no_danger_are_let_be(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_0000.nii", "a_0001.json", "._a_0001.nii.gz", "b_0000.nii.gz", "B_0000.nii.gz")
    assert [c.name for c in list_cases(tmp_path, ".nii.gz")] == ["B", "a", "b"]


def explicit(tmp_path, images, existing=()):
    touch(tmp_path / "x", *existing, "label.nii.gz")
    return list_training_cases(tmp_path, {
        "channel_names": dict(zip("012", MODALITIES)), "file_ending": ".nii.gz",
        "dataset": {"a": {"images": [i and f"x/{i}" for i in images], "label": "x/label.nii.gz"}}})


def test_explicit_dataset_in_channel_order_with_null(tmp_path):
    (case,) = explicit(tmp_path, ["f.nii.gz", None, "c.nii.gz"], ["f.nii.gz", "c.nii.gz"])
    assert {c: os.path.basename(f) for c, f in case.files.items()} == {0: "f.nii.gz", 2: "c.nii.gz"}


def test_explicit_dataset_by_channel_suffix(tmp_path):
    (case,) = explicit(tmp_path, ["c_0002.nii.gz", "f_0000.nii.gz"], ["c_0002.nii.gz", "f_0000.nii.gz"])
    assert {c: os.path.basename(f) for c, f in case.files.items()} == {0: "f_0000.nii.gz", 2: "c_0002.nii.gz"}


def test_explicit_dataset_whose_channels_cannot_be_told(tmp_path):
    with pytest.raises(NnmissError, match="case a lists 2 images for 3 channels"):
        explicit(tmp_path, ["f.nii.gz", "c.nii.gz"], ["f.nii.gz", "c.nii.gz"])


def test_explicit_dataset_with_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NnmissError, match=r"do not exist.*\n.*case a: .*c\.nii\.gz"):
        explicit(tmp_path, ["f.nii.gz", None, "c.nii.gz"], ["f.nii.gz"])


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
def test_reads_what_nnunet_reads(case, reader):
    images = read_case(case, MODALITIES, reader)
    expected, properties = reader().read_images(list(case.files.values()))
    assert images.available == (True, False, True)
    assert images.data.dtype == expected.dtype
    np.testing.assert_array_equal(images.data, expected)
    assert images.properties["spacing"] == properties["spacing"]
    assert images.blank == []
    np.testing.assert_array_equal(read_label(case, reader, images, [0, 1]), reader().read_seg(case.label)[0])


def truncate(path):
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])


def test_itk_itself_is_silent_about_truncation_and_nan(case):
    """Why whole_file.py exists; when ITK mends this, that file can go."""
    BAD_FILES["nan"][0](case.files[0])
    truncate(case.files[2])
    for file in case.files.values():
        array = sitk.GetArrayFromImage(sitk.ReadImage(file))
        assert array.shape == SHAPE and np.isfinite(array).all()


BAD_FILES = {
    "truncated": (truncate, "t1ce file .*cannot be read .truncated"),
    "empty": (lambda p: Path(p).write_bytes(b""), "t1ce file .*cannot be read"),
    "not an image": (lambda p: Path(p).write_bytes(b"hello"), "t1ce file .*cannot be read"),
    "nan": (lambda p: write_image(p, np.where(noise() > 130, np.nan, noise()).astype(np.float32)), "NaN or Inf"),
    "inf": (lambda p: write_image(p, np.where(noise() > 130, np.inf, noise()).astype(np.float32)), "NaN or Inf"),
    "shape": (lambda p: write_image(p, noise()[1:]), r"shapes differ: \(8, 7, 6\) against \(8, 7, 5\) voxels\)"),
    "origin": (lambda p: write_image(p, noise(), origin=(0, 0, 5)), "up to 5 mm apart; origin"),
    "spacing": (lambda p: write_image(p, noise(), spacing=(1, 1, 2.5)), "spacing .1, 1, 2. against .1, 1, 2.5."),
    "gone": (os.remove, "t1ce file .*not found"),
}


def test_two_grids_are_told_in_the_files_own_order_and_by_name():
    first = VoxelGrid((6, 7, 8), np.diag([-1.0, 1, 2]), np.array([-0.0, 239, -1e-12]))
    moved = VoxelGrid((6, 7, 8), np.diag([-1.0, 1, 2]), np.array([0, 0, 5.5]))
    assert grid_difference(first, first) is None
    assert grid_difference(first, VoxelGrid((5, 7, 8), first.axes_mm, first.origin_mm)) == (
        "shapes differ: (8, 7, 6) against (8, 7, 5) voxels")
    told = grid_difference(first, moved, ("the prediction", "the image"))
    assert told.endswith("origin (0, 239, 0) against (0, 0, 5.5) mm (the prediction against the image)")


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_channel_files_are_named(case, kind):
    spoil, message = BAD_FILES[kind]
    spoil(case.files[2])
    with pytest.raises(NnmissError, match=message) as error:
        read_case(case, MODALITIES, SimpleITKIO)
    assert "case a" in str(error.value) and "a_0002.nii.gz" in str(error.value)


def test_differing_directions_are_refused(case):
    image = sitk.ReadImage(case.files[2])
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, case.files[2])
    with pytest.raises(NnmissError, match="directions differ"):
        read_case(case, MODALITIES, SimpleITKIO)


def test_rounding_in_headers_is_accepted(case):
    write_image(case.files[2], noise(), origin=(1e-4, -1e-4, 0), spacing=(1, 1.00001, 2))
    assert sum(read_case(case, MODALITIES, SimpleITKIO).available) == 2


STRETCHED = np.diag([1.1, 1.2, 3.3, 1])


@pytest.mark.parametrize("sform, sform_code, qform_code, sound", [
    (None, 0, 1, True), ("same", 1, 0, True), (None, 0, 0, True), ("same", 2, 1, True), (STRETCHED, 4, 1, True),
    (STRETCHED, 1, 1, False), (STRETCHED, 4, 0, False)])
def test_headers_of_hospitals_and_other_programs(tmp_path, sform, sform_code, qform_code, sound):
    """qform or sform only, none, and an sform into MNI space, beside which ITK goes by the qform."""
    turned = np.array([[0.8, -0.6, 0, -10.123456], [0.6, 0.8, 0, 20], [0, 0, 3, 5], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(np.random.default_rng(0).integers(9999, 32000, (8, 7, 6)).astype(np.int16), None)
    image.header.set_zooms((1, 1, 3))
    image.set_qform(turned if qform_code else None, qform_code)
    image.set_sform(turned if isinstance(sform, str) else sform, sform_code)
    image.header.set_slope_inter(0.5, -7)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"made by a scanner"))
    nibabel.save(image, tmp_path / "a_0000.nii.gz")
    assert (why_not_whole(str(tmp_path / "a_0000.nii.gz"), thorough=True) is None) == sound
    if sound:
        images = read_case(RawCase("a", {0: str(tmp_path / "a_0000.nii.gz")}, None), MODALITIES, SimpleITKIO)
        np.testing.assert_allclose(images.properties["spacing"], [3, 1, 1], rtol=1e-6)
        np.testing.assert_array_equal(images.data[0].T, image.get_fdata() * 0.5 - 7)


def test_voxels_of_another_unit_are_refused_where_they_would_be_resampled():
    images = SimpleNamespace(data=np.zeros((1, 5, 6, 7)), properties={"spacing": [1000.0, 1000, 1000]})
    plans = SimpleNamespace(transpose_forward=[0, 1, 2])
    for function in ("resample_data_or_seg_to_shape", "no_resampling_hack"):
        configuration = SimpleNamespace(spacing=[1.0] * 3, configuration={"resampling_fn_data": function})
        with pytest.raises(NnmissError, match="not believable") if "seg" in function else nullcontext():
            check_resampling("a", images, plans, configuration)


@pytest.mark.parametrize("own, wanted, shape, channels, message", [
    ([5.0, 5, 5], [0.5, 0.5, 0.5], (40, 40, 40), 1, None),  # a PET on the grid of a fine MRI: 1000 times the voxels
    ([20.0, 4, 4], [0.25, 0.25, 0.25], (4, 16, 16), 4, None),
    ([1000.0] * 3, [1.0] * 3, (24, 24, 24), 1, "not believable"),  # micrometres for mm
    ([3.0, 1000, 1000], [1.0, 1.0], (24, 24, 24), 1, "not believable"),  # the same in 2D
    ([0.001] * 3, [1.0] * 3, (24, 24, 24), 1, "not believable"),
    ([40.0] * 3, [0.5] * 3, (24, 24, 24), 4, r"1920 x 1920 x 1920 voxels \(now 24 x 24 x 24\), for which 158.2 GB"),
    ([1.0] * 3, [1.0] * 3, (500, 500, 500), 4, None)])  # as large as it is, it was read
def test_growth_is_bounded_by_belief_and_by_memory(monkeypatch, own, wanted, shape, channels, message):
    monkeypatch.setattr("nnmiss.preprocessing.preprocessor.memory", lambda: 2**31)
    images = SimpleNamespace(data=np.broadcast_to(np.float32(0), (channels, *shape)), properties={"spacing": own})
    configuration = SimpleNamespace(spacing=wanted, configuration={"resampling_fn_data": "resample_data_or_seg_to_shape"})
    with pytest.raises(NnmissError, match=message) if message else nullcontext():
        check_resampling("a", images, SimpleNamespace(transpose_forward=[0, 1, 2]), configuration)


def test_no_channel_and_channel_beyond_names(case):
    with pytest.raises(NnmissError, match="case a has no channel file at all"):
        read_case(RawCase("a", {}, case.label), MODALITIES, SimpleITKIO)
    with pytest.raises(NnmissError, match=r"a_0002\.nii\.gz is channel 2, but dataset.json names only 2"):
        read_case(case, MODALITIES[:2], SimpleITKIO)


def test_blank_channels_are_reported_and_dropped_on_request(case):
    write_image(case.files[0], np.full(SHAPE, 7, dtype=np.float32), origin=(0, 0, 0))
    images = read_case(case, MODALITIES, SimpleITKIO)
    assert (images.blank, images.available) == (["flair"], (True, False, True))
    images = read_case(case, MODALITIES, SimpleITKIO, blank_is_missing=True)
    assert (images.blank, images.available, images.data.shape) == (["flair"], (False, False, True), (1, *SHAPE))
    write_image(case.files[2], np.zeros(SHAPE, dtype=np.float32))
    with pytest.raises(NnmissError, match="case a: all its channel files are blank"):
        read_case(case, MODALITIES, SimpleITKIO, blank_is_missing=True)


BAD_LABELS = {
    "unknown": (np.full(SHAPE, 3, dtype=np.uint8), {}, "unknown values: 3. dataset.json knows 0, 1, 2"),
    "fraction": (np.full(SHAPE, 0.5, dtype=np.float32), {}, "not integers: 0.5"),
    "nan": (np.full(SHAPE, np.nan, dtype=np.float32), {}, "NaN or Inf"),
    "shape": (np.zeros((5, 7, 8), dtype=np.uint8), {}, "images' voxel grid .shapes differ"),
    "origin": (np.zeros(SHAPE, dtype=np.uint8), {"origin": (0, 9, 0)}, "images' voxel grid .affines differ"),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_bad_labels_are_named(case, kind):
    array, geometry, message = BAD_LABELS[kind]
    write_image(case.label, array, **geometry)
    images = read_case(case, MODALITIES, SimpleITKIO)
    with pytest.raises(NnmissError, match=message) as error:
        read_label(case, SimpleITKIO, images, [0, 1, 2])
    assert "case a" in str(error.value) and case.label in str(error.value)


def test_files_with_several_channels_are_refused(tmp_path):
    skimage_io.imsave(tmp_path / "a_0000.png", np.zeros((8, 8, 3), dtype=np.uint8), check_contrast=False)
    with pytest.raises(NnmissError, match="holds 3 channels"):
        read_case(RawCase("a", {0: str(tmp_path / "a_0000.png")}, None), MODALITIES, NaturalImage2DIO)


def test_whole_files_in_several_gzip_members_pass(case):
    raw = gzip.decompress(Path(case.files[0]).read_bytes())
    members = gzip.compress(raw[:500]) + gzip.compress(raw[500:])  # as bgzip writes
    Path(case.files[0]).write_bytes(members)
    assert why_not_whole(case.files[0]) is None
    truncate(case.files[0])
    assert "truncated" in why_not_whole(case.files[0])


def test_checksum_is_verified_when_thorough(case):
    data = bytearray(Path(case.files[0]).read_bytes())
    data[-6] ^= 0xFF  # within the CRC-32
    Path(case.files[0]).write_bytes(bytes(data))
    assert why_not_whole(case.files[0]) is None
    assert "corrupt" in why_not_whole(case.files[0], thorough=True)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind, extra", [("<f4", b""), (">f4", b""), ("<f8", b"more behind"), ("<i2", b"")])
def test_one_unpacking_finds_nan_as_a_whole_array_does(tmp_path, monkeypatch, ending, kind, extra):
    monkeypatch.setattr("nnmiss.preprocessing.whole_file.AT_ONCE", 64)
    array = noise().T.astype(kind)
    if kind != "<i2":
        array[[0, 3, -1], [0, 2, -1], [0, 5, -1]] = [np.nan, np.inf, -np.inf]
    image = nibabel.Nifti1Image(array, np.eye(4), nibabel.Nifti1Header(endianness=kind[0]))
    image.header.set_data_dtype(kind)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"nan " * 9))
    raw = image.to_bytes() + extra
    path = tmp_path / f"a_0000{ending}"
    path.write_bytes(gzip.compress(raw[:500]) + gzip.compress(raw[500:]) if ending == ".nii.gz" else raw)
    stored = nibabel.load(path).dataobj.get_unscaled()
    assert first_look(str(path)) == (None, int((~np.isfinite(stored)).sum())) == (None, 0 if kind == "<i2" else 3)


def test_truncated_plain_nifti(tmp_path):
    path = write_image(tmp_path / "a_0000.nii", noise())
    assert why_not_whole(path) is None
    truncate(path)
    assert "truncated" in why_not_whole(path)


@pytest.mark.parametrize("num_samples", [50, 20_000])
def test_intensity_statistics_are_nnunets_over_the_cases_that_have_the_channel(num_samples, monkeypatch):
    rng = np.random.default_rng(3)
    segs = [(rng.random((1, *SHAPE)) < p) for p in (0.5, 0.3, 0.7)]
    images = [rng.normal(50 * c, 9, (2, *SHAPE)).round(1).astype(np.float32) for c in range(3)]
    have = [[0, 1], [1], [0, 1]]
    samples = [sample_foreground(s, i[h], h, num_samples) for s, i, h in zip(segs, images, have)]
    monkeypatch.setattr("nnmiss.preprocessing.intensity_statistics.AT_ONCE", 999)  # the draws come in parts
    ours = [channel_statistics(samples, c, num_samples) for c in (0, 1)]
    assert not any(sample.values for sample in samples)  # their memory is given up
    drawn = {0: [], 1: []}
    for seg, image, channels in zip(segs, images, have):
        per_channel, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
            seg.astype(np.int8), image[channels], num_samples=num_samples)
        for channel, values in zip(channels, per_channel):
            drawn[channel].append(values)
    for channel in (0, 1):
        pooled = np.concatenate(drawn[channel])
        expected = {"mean": np.mean(pooled), "std": np.std(pooled), "min": pooled.min(), "max": pooled.max(),
                    **dict(zip(("percentile_00_5", "median", "percentile_99_5"),
                               np.percentile(pooled, np.array((0.5, 50.0, 99.5)))))}
        assert ours[channel] == {k: float(v) for k, v in expected.items()}  # equal to the last bit


def test_bad_cases_are_collected_in_process_and_in_a_pool():
    arguments = {"good": (6, 3), "bad": (1, 0), "fine": (9, 3)}
    for processes in (1, 2):
        results = run_on_cases(operator.truediv, arguments, processes, "test", show_progress_bar=False)
        assert results.done == {"good": 2, "fine": 3}
        assert results.errors == {"bad": "case bad: ZeroDivisionError: division by zero"}


def test_a_killed_worker_is_an_error_not_a_hang():
    with pytest.raises(NnmissError, match="fewer processes than 2"):
        run_on_cases(os._exit, {"a": (1,), "b": (1,)}, 2, "test", show_progress_bar=False)


def test_workers_end_with_the_process_that_was_killed(tmp_path):
    work = f"import os, time; open({str(tmp_path)!r} + f'/{{os.getpid()}}', 'w').close(); time.sleep(300)"
    parent = os.fork()
    if parent == 0:
        run_on_cases(exec, {"a": (work,), "b": (work,)}, 2, "test", show_progress_bar=False)
        os._exit(0)
    _until(lambda: len(list(tmp_path.iterdir())) == 2)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    _until(lambda: not any(is_running(int(file.name)) for file in tmp_path.iterdir()))


def _until(happened) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_splits_are_checked_and_installed(tmp_path):
    path = tmp_path / "my.json"
    good = [{"train": ["a", "b"], "val": ["c"]}]
    path.write_text(json.dumps(good))
    assert read_splits(path, ["a", "b", "c"]) == good
    assert choose_splits(str(path), tmp_path, ["a", "b", "c"]) == good
    assert choose_splits(None, tmp_path, ["a"]) is None
    assert "wrote" in install_splits(good, tmp_path / "pp", shipped=False)
    assert json.loads((tmp_path / "pp" / "splits_final.json").read_text()) == good
    other = [{"train": ["c"], "val": ["a"]}]
    with pytest.raises(NnmissError, match="differs from the splits shipped"):
        install_splits(other, tmp_path / "pp", shipped=True)
    assert "replaced" in install_splits(other, tmp_path / "pp", shipped=False)
    with pytest.raises(NnmissError, match="neither a file nor a preset"):
        choose_splits("official", tmp_path, ["a"])


@pytest.mark.parametrize(("splits", "message"), [
    ([{"train": ["a", "z"], "val": ["b"]}], "fold 0: unknown cases z"),
    ([{"train": ["a"], "val": ["a"]}], "fold 0: cases that stand there more than once a"),
    ([{"train": [], "val": ["a"]}], "fold 0: no training case"),
    ({"train": ["a"]}, "must hold a list"),
    ([], "must hold a list"),
])
def test_bad_splits_are_refused(tmp_path, splits, message):
    path = tmp_path / "my.json"
    path.write_text(json.dumps(splits))
    with pytest.raises(NnmissError, match=message):
        read_splits(path, ["a", "b"])


def test_subset_report_counts_every_case(tmp_path):
    rng = np.random.default_rng(0)
    modalities = [f"m{i}" for i in range(8)]
    available = {f"c{i}": tuple(map(bool, rng.random(8) < 0.7)) for i in range(200)}
    table = count_subsets(available, modalities)
    expected = Counter(available.values())
    counted = {tuple(bool(row[m]) for m in modalities): row["cases"] for _, row in table.iterrows()}
    assert counted == dict(expected) and len(table) > ROWS_SHOWN
    text = write_subset_report(available, modalities, tmp_path)
    assert (tmp_path / "subsets.png").stat().st_size > 5000
    assert (tmp_path / "subsets.md").read_text() == text + "\n"
    assert f"{sum(row[3] for row in available.values())} have it" in text
