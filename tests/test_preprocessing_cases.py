"""Fingerprint and preprocessing of cases with holes, and equality with stock nnU-Net where there are none."""
from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnmiss.atomic_files import read_json
from nnmiss.availability import read_availability
from nnmiss.errors import NnmissError
from nnmiss.planners.plain import nnMissPlanner
from nnmiss.preprocessing.fingerprint import MissingModalityFingerprintExtractor
from nnmiss.preprocessing.preprocess_dataset import preprocess_configuration
from nnmiss.preprocessing.preprocessor import MissingModalityPreprocessor, preprocess_arrays, preprocess_case
from nnmiss.preprocessing.raw_dataset import RawCase, list_training_cases
from nnmiss.preprocessing.read_case import read_case

CHANNELS = ("flair", "CT", "t2")
NAME = "Dataset301_Test"
SIZE = 24
VOXELS = 20_000  # values drawn for the fingerprint


def write_dataset(root, channels=CHANNELS, cases=4, holes=(), labels=None, spacing=(1.0, 1.0, 1.0)):
    """A ball with two nested lesions on zero background; `holes` are (case number, channel) pairs left out."""
    folder = Path(root) / NAME
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij")) - SIZE / 2
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True)
    for number in range(cases):
        distance = np.sqrt(((grid - rng.integers(-3, 4, (3, 1, 1, 1))) ** 2).sum(0))
        seg = (distance < 5).astype(np.uint8) + (distance < 3)
        for channel in range(len(channels)):
            radius = 9 - channel  # channels have boxes of their own
            head = np.sqrt((grid**2).sum(0)) < radius
            image = head * (rng.normal(100, 15, head.shape) + 40 * (seg > channel % 2)).clip(1)
            if (number, channel) not in holes:
                write_image(folder / "imagesTr" / f"c{number}_{channel:04d}.nii.gz", image.astype(np.float32), spacing)
        write_image(folder / "labelsTr" / f"c{number}.nii.gz", seg, spacing)
    content = {"channel_names": {str(i): c for i, c in enumerate(channels)}, "numTraining": cases,
               "labels": {"background": 0, "rim": 1, "core": 2}, "file_ending": ".nii.gz", **(labels or {})}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def write_image(path, array, spacing=(1.0, 1.0, 1.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), True)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """nnU-Net's folders; returns (raw, preprocessed)."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path / "raw", tmp_path / "preprocessed"


def extract(**options):
    extractor = MissingModalityFingerprintExtractor(NAME, 1, **options)
    extractor.num_foreground_voxels_for_intensitystats = VOXELS
    extractor.show_progress_bar = False
    return extractor.run()


def plan(**options):
    extract(**options)
    planner = nnMissPlanner(NAME)
    planner.blank_is_missing = options.get("blank_is_missing", False)
    manager = PlansManager(planner.plan_experiment())
    return manager, manager.get_configuration("3d_fullres"), planner.dataset_json


def preprocess(configuration="3d_fullres", preprocessor=None):
    preprocessor = preprocessor or MissingModalityPreprocessor()
    preprocessor.show_progress_bar = False
    return preprocess_configuration(NAME, configuration, "nnMissPlans", 1, preprocessor)


def stored(folder, case):
    data, seg = (blosc2.open(str(folder / f"{case}{e}.b2nd"))[:] for e in ("", "_seg"))
    return data, seg, pickle.loads((folder / f"{case}.pkl").read_bytes())


def test_available_channels_are_cropped_and_normalised_alone_and_absent_ones_are_zero(folders):
    """Against crop, CT clipping and z-score written out by hand (no resampling: the spacing is the target's)."""
    write_dataset(folders[0], holes=[(1, 0), (2, 1), (3, 0), (3, 1)])
    manager, configuration, dataset_json = plan()
    assert configuration.normalization_schemes[1] == "CTNormalization"
    for case in list_training_cases(folders[0] / NAME, dataset_json):
        raw = {c: sitk.GetArrayFromImage(sitk.ReadImage(f)) for c, f in case.files.items()}
        inside = np.any([image != 0 for image in raw.values()], axis=0)
        box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(inside))
        data, seg, properties = preprocess_case(case, manager, configuration, dataset_json)
        assert data.dtype == np.float32 and data.shape == (3, *inside[box].shape)
        assert properties["nnmiss_available"] == [c in raw for c in range(3)]
        inside |= sitk.GetArrayFromImage(sitk.ReadImage(case.label)) > 0  # labelled voxels count as inside
        np.testing.assert_array_equal(seg[0] >= 0, inside[box])
        for channel in range(3):
            if channel not in raw:
                assert not data[channel].any()
                continue
            image = raw[channel][box].astype(np.float64)
            if channel == 1:
                p = manager.foreground_intensity_properties_per_channel["1"]
                image = (image.clip(p["percentile_00_5"], p["percentile_99_5"]) - p["mean"]) / p["std"]
            else:
                masked = configuration.use_mask_for_norm[channel]
                used = image[inside[box]] if masked else image
                image = np.where(inside[box] | (not masked), (image - used.mean()) / used.std(), 0)
            np.testing.assert_allclose(data[channel], image, atol=2e-4)


@pytest.mark.parametrize("num_modalities", range(2, 9))
def test_any_number_of_modalities(folders, num_modalities):
    channels = ["CT" if i == 0 else f"m{i}" for i in range(num_modalities)]
    write_dataset(folders[0], channels, cases=2, holes=[(0, i) for i in range(1, num_modalities)])
    plan()
    assert preprocess() == {}
    data, _, properties = stored(folders[1] / NAME / "nnMissPlans_3d_fullres", "c0")
    assert data.shape[0] == num_modalities and not data[1:].any() and data[0].any()
    assert properties["nnmiss_available"] == [True] + [False] * (num_modalities - 1)
    assert sum(read_availability(folders[1] / NAME, channels)["c1"]) == num_modalities


def test_arrays_give_what_files_give_and_stay_untouched(folders):
    write_dataset(folders[0], holes=[(1, 0)])
    manager, configuration, dataset_json = plan()
    case = list_training_cases(folders[0] / NAME, dataset_json)[1]
    images = read_case(case, list(CHANNELS), manager.image_reader_writer_class)
    before = images.data.copy(), deepcopy(images.properties)
    data, seg, properties = preprocess_arrays(images.data, images.available, images.properties, manager, configuration,
                                              dataset_json)
    expected = preprocess_case(RawCase(case.name, case.files, None), manager, configuration, dataset_json)
    np.testing.assert_array_equal(data, expected[0])
    np.testing.assert_array_equal(seg, expected[1])
    np.testing.assert_array_equal(images.data, before[0])
    assert images.properties == before[1] and properties["nnmiss_available"] == [False, True, True]
    with pytest.raises(NnmissError, match="2 image channels were given"):
        preprocess_arrays(images.data, (True,) * 3, images.properties, manager, configuration, dataset_json)


def stock_pipeline(folders, configurations=("2d", "3d_fullres")):
    """Stock nnU-Net's own fingerprint, plan and arrays (its loop over cases without its process pool)."""
    extractor = DatasetFingerprintExtractor(NAME, 1)
    extractor.num_foreground_voxels_for_intensitystats = VOXELS
    extractor.run()
    plans = ExperimentPlanner(NAME).plan_experiment()
    manager = PlansManager(plans)
    dataset_json = read_json(folders[0] / NAME / "dataset.json")
    for configuration in configurations:
        output = folders[1] / NAME / f"nnUNetPlans_{configuration}"
        output.mkdir()
        for case in list_training_cases(folders[0] / NAME, dataset_json):
            DefaultPreprocessor(False).run_case_save(str(output / case.name), list(case.files.values()), case.label,
                                                     manager, manager.get_configuration(configuration), dataset_json)
    return plans


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set without holes, gone through stock nnU-Net (a module's worth of it: the pool costs seconds)."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (root / name).mkdir()
            patch.setenv(f"nnUNet_{name}", str(root / name))
        patch.setenv("nnUNet_n_proc_DA", "1")  # stock planning dies with 0
        write_dataset(root / "raw", spacing=(1.0, 1.0, 1.5))
        stock_pipeline((root / "raw", root / "preprocessed"))
    return root


@pytest.fixture
def whole_copy(whole, folders):
    """A fresh copy of the stock-preprocessed data set (times of modification kept)."""
    for root, source in zip(folders, ("raw", "preprocessed")):
        shutil.copytree(whole / source / NAME, root / NAME)
    return folders


def without_names(plans):
    plans = json.loads(json.dumps(plans, default=lambda x: x.tolist()))
    for key in ("plans_name", "experiment_planner_used"):
        del plans[key]
    for configuration in plans["configurations"].values():
        configuration.pop("data_identifier", None)
        configuration.pop("nnmiss", None)
    return plans


def test_without_holes_everything_is_bit_identical_to_stock(whole_copy):
    folder = whole_copy[1] / NAME
    stock_fingerprint = (folder / "dataset_fingerprint.json").read_bytes()
    plan()
    assert (folder / "dataset_fingerprint.json").read_bytes() == stock_fingerprint
    stock_plans = read_json(folder / "nnUNetPlans.json")
    assert without_names(read_json(folder / "nnMissPlans.json")) == without_names(stock_plans)
    (folder / "nnUNetPlans.json").unlink()  # so that nothing is linked
    for configuration in ("2d", "3d_fullres"):
        assert preprocess(configuration) == {}
        for case in (f"c{i}" for i in range(4)):
            ours = stored(folder / f"nnMissPlans_{configuration}", case)
            stock = stored(folder / f"nnUNetPlans_{configuration}", case)
            for a, b in zip(ours[:2], stock[:2]):
                assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
            locations, expected = ours[2]["class_locations"], stock[2]["class_locations"]
            assert list(locations) == list(expected)
            assert all(np.array_equal(locations[k], expected[k]) for k in expected)
            assert {k for k in ours[2] if k not in stock[2]} == {"nnmiss_available", "nnmiss_blank", "nnmiss_made_of"}


def inode(folder, name):
    return (folder / name).stat().st_ino


def test_stock_arrays_are_hard_linked_when_nothing_would_change(whole_copy, capsys):
    plan()
    assert preprocess() == {}
    folder = whole_copy[1] / NAME
    ours, stock = folder / "nnMissPlans_3d_fullres", folder / "nnUNetPlans_3d_fullres"
    assert "hard-linked 4 cases" in capsys.readouterr().out
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in stock.iterdir())
    for name in ("c0.b2nd", "c3_seg.b2nd"):
        assert inode(ours, name) == inode(stock, name)
    assert stored(ours, "c2")[2]["nnmiss_available"] == [True, True, True]
    assert "nnmiss_available" not in stored(stock, "c2")[2]


@pytest.mark.parametrize("change", ["newer image", "half-written", "missing case", "other spacing", "hole"])
def test_stock_arrays_are_not_linked_when_they_may_differ(whole_copy, change):
    raw, folder = whole_copy[0] / NAME, whole_copy[1] / NAME
    stock = folder / "nnUNetPlans_3d_fullres"
    if change == "newer image":
        os.utime(raw / "imagesTr" / "c1_0000.nii.gz")
    if change == "half-written":
        (stock / "c1.b2nd").write_bytes((stock / "c1.b2nd").read_bytes()[:50])
        os.utime(stock / "c1.pkl")
    if change == "missing case":
        (stock / "c1.pkl").unlink()
    if change == "other spacing":
        plans = read_json(folder / "nnUNetPlans.json")
        plans["configurations"]["3d_fullres"]["spacing"][0] = 2.0
        (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    if change == "hole":
        (raw / "imagesTr" / "c1_0000.nii.gz").unlink()
    plan()
    assert preprocess() == {}
    ours = folder / "nnMissPlans_3d_fullres"
    assert len(nnUNetDatasetBlosc2.get_identifiers(str(ours))) == 4
    assert inode(ours, "c0.b2nd") != inode(stock, "c0.b2nd")


LABELS = {
    "regions": {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]},
    "ignore": {"labels": {"background": 0, "rim": 1, "ignore": 2}},
}


@pytest.mark.parametrize("kind", LABELS)
def test_regions_and_ignore_label(folders, kind):
    write_dataset(folders[0], cases=2, holes=[(0, 1)], labels=LABELS[kind])
    manager, configuration, dataset_json = plan()
    assert preprocess() == {}
    complete = list_training_cases(folders[0] / NAME, dataset_json)[1]
    _, seg, expected = DefaultPreprocessor(False).run_case(
        list(complete.files.values()), complete.label, manager, configuration, dataset_json)
    _, our_seg, ours = stored(folders[1] / NAME / "nnMissPlans_3d_fullres", "c1")
    np.testing.assert_array_equal(our_seg, seg)
    assert list(ours["class_locations"]) == list(expected["class_locations"])
    hole = stored(folders[1] / NAME / "nnMissPlans_3d_fullres", "c0")[2]["class_locations"]
    assert list(hole) == list(expected["class_locations"]) and all(len(v) for v in hole.values())


def test_fingerprint_measures_each_channel_over_the_cases_that_have_it(folders):
    raw = write_dataset(folders[0], holes=[(0, 0), (1, 0), (2, 0)])
    image, seg = (sitk.GetArrayFromImage(sitk.ReadImage(str(raw / p))) for p in
                  ("imagesTr/c3_0000.nii.gz", "labelsTr/c3.nii.gz"))
    flair = extract()["foreground_intensity_properties_per_channel"]["0"]
    assert flair["min"] == image[seg > 0].min() and flair["max"] == image[seg > 0].max()
    assert flair["mean"] == pytest.approx(image[seg > 0].mean(), rel=0.01)


def test_availability_and_blank_files(folders):
    raw = write_dataset(folders[0], holes=[(2, 0)])
    write_image(raw / "imagesTr" / "c1_0002.nii.gz", np.zeros((SIZE,) * 3, dtype=np.float32))
    for flag in (False, True):
        plan(blank_is_missing=flag)
        assert preprocess() == {}
        table = read_json(folders[1] / NAME / "availability.json")
        assert table["blank"] == {"c1": ["t2"]} and table["blank_is_missing"] is flag
        assert table["cases"]["c1"] == [True, True, not flag] and table["cases"]["c2"] == [False, True, True]
        data, _, properties = stored(folders[1] / NAME / "nnMissPlans_3d_fullres", "c1")
        assert properties["nnmiss_available"] == table["cases"]["c1"] and not data[2].any()


def test_a_modality_without_any_case_is_refused(folders):
    raw = write_dataset(folders[0])
    for number in range(4):
        write_image(raw / "imagesTr" / f"c{number}_0002.nii.gz", np.ones((SIZE,) * 3, dtype=np.float32))
    with pytest.raises(NnmissError, match="no training case has modality t2"):
        extract(blank_is_missing=True)


def test_fingerprint_names_every_bad_case(folders):
    raw = write_dataset(folders[0])
    write_image(raw / "labelsTr" / "c0.nii.gz", np.full((SIZE,) * 3, 9, dtype=np.uint8))
    (raw / "imagesTr" / "c2_0001.nii.gz").write_bytes(b"")
    with pytest.raises(NnmissError, match=r"2 problems:\n.*case c0: label.*unknown values: 9.*\n.*case c2: CT file"):
        extract()
    assert not (folders[1] / NAME / "dataset_fingerprint.json").exists()


def test_fingerprint_is_kept_until_channel_files_change(folders):
    raw = write_dataset(folders[0])
    extract()
    file = folders[1] / NAME / "dataset_fingerprint.json"
    file.write_text("{}")
    assert extract() == {}
    (raw / "imagesTr" / "c2_0001.nii.gz").unlink()
    assert "spacings" in extract()
    assert read_availability(folders[1] / NAME, list(CHANNELS))["c2"] == (True, False, True)


class Interrupted(MissingModalityPreprocessor):
    """Ctrl-C in the middle of the third case, after its first file was written."""

    def save_raw_case(self, case, folder, *args):
        if case.name == "c2":
            os.makedirs(Path(folder) / ".partial", exist_ok=True)
            (Path(folder) / ".partial" / "c2.b2nd").write_bytes(b"half")
            raise KeyboardInterrupt
        return super().save_raw_case(case, folder, *args)


def test_ctrl_c_leaves_whole_cases_only(folders):
    write_dataset(folders[0], holes=[(1, 1)])
    plan()
    with pytest.raises(KeyboardInterrupt):
        preprocess(preprocessor=Interrupted())
    folder = folders[1] / NAME / "nnMissPlans_3d_fullres"
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        f"{case}{ending}" for case in ("c0", "c1") for ending in (".b2nd", "_seg.b2nd", ".pkl"))


KILLED = """
import os, signal
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
import nnmiss.preprocessing.preprocessor as module
whole = module.publish_case
def publish(partial, folder, name):
    if name == "c2":
        os.replace(partial / "c2_seg.b2nd", folder / "c2_seg.b2nd")
        os.kill(os.getpid(), signal.SIGKILL)
    whole(partial, folder, name)
module.publish_case = publish
from nnmiss.preprocessing.preprocess_dataset import preprocess_configuration
preprocess_configuration("Dataset301_Test", "3d_fullres", "nnMissPlans", 1)
"""


def test_a_killed_process_leaves_no_half_case_in_the_listing(folders):
    write_dataset(folders[0])
    plan()
    assert subprocess.run([sys.executable, "-c", KILLED], capture_output=True).returncode == -signal.SIGKILL
    folder = folders[1] / NAME / "nnMissPlans_3d_fullres"
    assert sorted(nnUNetDatasetBlosc2.get_identifiers(str(folder))) == ["c0", "c1"]
    assert preprocess() == {}
    assert len(list(folder.iterdir())) == 12


def test_one_bad_case_is_named_and_the_others_finish(folders):
    raw = write_dataset(folders[0])
    plan()
    write_image(raw / "imagesTr" / "c1_0000.nii.gz", np.full((SIZE,) * 3, np.nan, dtype=np.float32))
    errors = preprocess()
    assert list(errors) == ["c1"] and "c1_0000.nii.gz holds 13824 NaN" in errors["c1"]
    folder = folders[1] / NAME / "nnMissPlans_3d_fullres"
    assert sorted(nnUNetDatasetBlosc2.get_identifiers(str(folder))) == ["c0", "c2", "c3"]


def test_processes_give_what_one_process_gives(folders):
    write_dataset(folders[0], cases=3, holes=[(1, 1)])
    plan()
    assert preprocess() == {}
    folder = folders[1] / NAME / "nnMissPlans_3d_fullres"
    alone = stored(folder, "c1")
    preprocessor = MissingModalityPreprocessor()
    preprocessor.show_progress_bar = False
    assert preprocessor.run(NAME, "3d_fullres", "nnMissPlans", 2) == {}
    for a, b in zip(stored(folder, "c1")[:2], alone[:2]):
        np.testing.assert_array_equal(a, b)
    assert len(nnUNetDatasetBlosc2.get_identifiers(str(folder))) == 3
