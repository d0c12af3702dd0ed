"""The phantom's ingredients: each replayable, independent of the others, and of the size that its setting says."""
from __future__ import annotations

import json
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import distance_transform_edt, laplace

from nnmiss.cli import phantom as phantom_command
from nnmiss.dataset_conversion import phantom, phantom_labels
from nnmiss.dataset_conversion.phantom import (
    FIRST_TEST_NUMBER,
    PRESETS,
    PhantomSettings,
    make_case,
    preset_settings,
    training_labels,
    write_dataset,
)
from nnmiss.dataset_conversion.phantom_anatomy import make_anatomy
from nnmiss.dataset_conversion.phantom_contrast import CONTRASTS, DISTRACTORS, contrast_row, looks_like, modality_names
from nnmiss.dataset_conversion.phantom_lookalikes import lookalikes
from nnmiss.dataset_conversion.phantom_registration import displacement
from nnmiss.dataset_conversion.phantom_scanners import Scanner, scanner_number, scanner_profile
from nnmiss.errors import NnmissError

PLAIN = PhantomSettings(size=28)
INGREDIENTS = {"contrasts": "brats_like", "invisible": True, "lookalikes": 2, "scanners": 3, "registration_error": 0.8,
               "label_noise": 0.6}
ALL = replace(PLAIN, **INGREDIENTS)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


# Of the arrays before any ingredient existed: sums of the labels' values, means and deviations of the images.
@pytest.mark.parametrize("settings, number, labels, images", [
        ({"size": 24, "modalities": 3}, 0, [12863, 536, 160, 265], [(67.216, 101.2552), (133.1619, 196.1582),
     (188.9279, 281.081)]),
        ({"size": (24, 28, 32), "modalities": 6, "difficulty": 0.8, "seed": 3}, 5, [20623, 668, 63, 150], [(102.3433,
     140.9859), (158.2399, 218.6312), (295.9024, 408.779), (412.4496, 565.5361), (123.7987, 168.4711), (409.0104,
     554.4128)]),
        ({"size": 32}, 100000, [30272, 1671, 110, 715], [(81.79408, 119.4483), (133.474, 190.6882), (223.5741,
     322.4444), (410.8674, 579.374)]),
        ({"size": 24, "difficulty": 0.0}, 1, [13157, 521, 46, 100], [(85.91665, 124.3461), (123.6011, 176.1558),
     (218.5138, 312.3529), (305.6269, 433.6355)]),
        ({"size": 28, "difficulty": 1.0, "modalities": 8}, 2, [21123, 558, 90, 181], [(95.45731, 139.2384), (290.2185,
     417.4289), (100.9886, 147.3306), (238.9582, 346.9008), (190.0133, 272.9592), (258.4785, 374.5022), (213.5089,
     308.3097), (286.212, 406.493)]),
])
def test_without_ingredients_cases_are_those_that_earlier_studies_used(settings, number, labels, images):
    made, truth = make_case(PhantomSettings(**settings), number)
    assert np.bincount(truth.ravel()).tolist() == labels
    assert np.array_equal(training_labels(PhantomSettings(**settings), number), truth)
    assert np.allclose([(c.mean(dtype=float), c.std(dtype=float)) for c in made], images, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(INGREDIENTS))
def test_an_ingredient_is_the_same_every_time_and_changes_what_it_is_for(name):
    settings = replace(PLAIN, **{name: INGREDIENTS[name]})
    images, labels = make_case(settings, 2)
    again, _ = make_case(settings, 2)
    plain, truth = make_case(PLAIN, 2)
    assert np.array_equal(images, again) and np.array_equal(labels, truth)
    assert np.array_equal(training_labels(settings, 2), training_labels(settings, 2))
    assert np.array_equal(images, plain) == (name == "label_noise")
    assert np.array_equal(training_labels(settings, 2), truth) == (name != "label_noise")
    assert np.array_equal(images > 0, plain > 0)


@pytest.mark.parametrize("name, function, neutral", [
    ("scanners", "scanner_profile", lambda *_: Scanner()),
    ("registration_error", "displacement", lambda error, size, *_: np.zeros((3, *size), np.float32)),
    ("lookalikes", "lookalikes", lambda anatomy, *_: np.zeros(anatomy.labels.shape, np.float32))])
def test_an_ingredient_of_no_effect_leaves_the_draws_of_all_others_alone(monkeypatch, name, function, neutral):
    without, _ = make_case(replace(ALL, **{name: 0}), 1)
    monkeypatch.setattr(phantom, function, neutral)
    assert np.allclose(make_case(ALL, 1)[0], without, rtol=1e-5)


def test_label_noise_draws_the_same_whatever_the_images_are():
    assert np.array_equal(training_labels(ALL, 1), training_labels(replace(PLAIN, label_noise=0.6), 1))


@pytest.mark.parametrize("modality", [*modality_names(8)])
def test_an_invisible_tissue_leaves_no_trace_in_its_modality(modality):
    """Exactly the same scene when the tissue's voxels are labelled as what they look like."""
    anatomy = make_anatomy((32, 32, 32), 0, 1)
    settings = preset_settings("brats_like", size=32, modalities=8)
    scene = lambda a: phantom._scene(settings, 1, a, modality, np.random.default_rng(0))  # noqa: E731
    truth = scene(anatomy)
    swaps = looks_like(modality)
    assert bool(swaps) == (modality != "t1ce")
    for tissue, other in swaps.items():
        value = {"edema": 1, "necrosis": 2, "enhancing": 3}
        inside = anatomy.labels == value[tissue]
        if other == "white":
            row = contrast_row(modality, settings.contrasts, True)
            assert row[tissue] == 0
            continue
        labels = np.where(inside, value[other], anatomy.labels).astype(np.uint8)
        edema = np.where(labels <= 1, anatomy.whole, 0)
        assert np.array_equal(scene(replace(anatomy, labels=labels, edema=edema)), truth)
    if "enhancing" not in swaps:  # and the tissue that is plain there does leave one
        assert not np.allclose(scene(replace(anatomy, labels=np.where(anatomy.labels == 3, 2, anatomy.labels))), truth)


def test_white_matter_in_a_further_modality_is_what_its_hidden_tissues_look_like():
    settings = PhantomSettings(size=32, modalities=7, invisible=True)
    anatomy = make_anatomy(settings.size, 0, 1)
    for modality in ("m5", "m6", "m7"):
        scene = phantom._scene(settings, 1, anatomy, modality, np.random.default_rng(0))
        row = contrast_row(modality)
        healthy = sum(weight * row[name] for name, weight in anatomy.tissues.items())
        for label, tissue in ((2, "necrosis"), (3, "enhancing")):
            inside = anatomy.labels == label
            assert np.array_equal(scene[inside], healthy[inside]) == (tissue in looks_like(modality))


def test_lookalikes_are_in_their_own_modality_alone_and_fade_before_the_core():
    one = replace(PLAIN, size=40, lookalikes=3)
    images, labels = make_case(one, 4)
    plain, _ = make_case(replace(one, lookalikes=0), 4)
    anatomy = make_anatomy(one.size, 0, 4)
    blobs = {name: lookalikes(anatomy, 3, 0, 4, name) for name in one.names}
    assert all((blob[labels >= 2] == 0).all() and blob.max() > 0.5 for blob in blobs.values())
    assert all(blob[labels == 1].max() < 0.35 for blob in blobs.values())
    for channel, (name, blob) in enumerate(blobs.items()):
        reached = distance_transform_edt(blob == 0) <= 3.5  # the point spread reaches two voxels along each axis
        assert np.array_equal(images[channel][~reached], plain[channel][~reached])
        inside = (blob > 0.9) & anatomy.brain
        change = np.median(images[channel][inside] / plain[channel][inside]) - 1
        assert np.sign(change) == np.sign(contrast_row(name)["enhancing" if name == "t1ce" else "edema"])
        assert abs(change) > 0.15


def test_every_distractor_of_the_preset_is_in_one_modality_only():
    table = CONTRASTS[PRESETS["brats_like"]["contrasts"]][1]
    assert all(sum(row[structure] != 0 for row in table.values()) == 1 for structure in DISTRACTORS)


def test_cases_come_from_all_scanners_and_a_scanner_does_not_depend_on_their_number():
    assert {scanner_number(0, case, 4) for case in range(40)} == {0, 1, 2, 3}
    profiles = [scanner_profile(0, k, m) for k in range(4) for m in ("flair", "t1")]
    assert len({(p.gamma, p.blur, p.noise, p.shading, p.brightness) for p in profiles}) == 8
    assert scanner_profile(0, 1, "t1") != scanner_profile(1, 1, "t1")


def test_measured_noise_is_that_of_the_scanner():
    settings = PhantomSettings(size=32, modalities=2, scanners=6)
    measured, expected = [], []
    for number in range(10):
        images, _ = make_case(settings, number)
        for name, image in zip(settings.names, images):
            inside = distance_transform_edt(image > 0) > 4
            level = np.median(image[inside])
            measured.append(np.median(np.abs(laplace(image / level)[inside])))
            expected.append(scanner_profile(0, scanner_number(0, number, 6), name).noise)
    assert np.corrcoef(measured, expected)[0, 1] > 0.65  # the structures of brain and tumour are in it too


def found_by_registration(fixed, moving, brain) -> np.ndarray:
    """(3, X, Y, Z) rigid displacement in voxels that SimpleITK finds between two images of one modality."""
    fixed, moving = (sitk.GetImageFromArray(a.T.astype(np.float32)) for a in (fixed, moving))
    centre = [(side - 1) / 2 for side in brain.shape]
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMeanSquares()
    method.SetMetricFixedMask(sitk.GetImageFromArray(brain.T.astype(np.uint8)))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(0.5, 1e-3, 60)
    method.SetOptimizerScalesFromPhysicalShift()
    start = sitk.Euler3DTransform()
    start.SetCenter(centre)
    method.SetInitialTransform(start, inPlace=False)
    found = sitk.Euler3DTransform(sitk.CompositeTransform(method.Execute(fixed, moving)).GetBackTransform())
    turn, grid = np.array(found.GetMatrix()).reshape(3, 3), np.indices(brain.shape).astype(float)
    middle = np.reshape(centre, (3, 1, 1, 1))
    return np.tensordot(turn, grid - middle, 1) + middle + np.reshape(found.GetTranslation(), (3, 1, 1, 1)) - grid


def test_registration_error_measured_by_a_registration():
    error = 1.5
    off = replace(PLAIN, size=32, difficulty=0, registration_error=error)
    drawn, found = [], []
    for number in range(3):
        images, _ = make_case(off, number)
        aligned, _ = make_case(replace(off, registration_error=0), number)
        brain = distance_transform_edt(images[0] > 0) > 3
        for channel, name in enumerate(off.names):
            field = displacement(error, off.size, 0, number, name)[:, brain]
            # A voxel of the moved image comes from x + field, so the aligned one is fetched back with minus that.
            rigid = -found_by_registration(aligned[channel], images[channel], brain)[:, brain]
            drawn.append(np.sqrt(np.square(field).sum(0).mean()))
            found.append(np.sqrt(np.square(rigid).sum(0).mean()))
            assert np.corrcoef(field.ravel(), rigid.ravel())[0, 1] > 0.6
    assert 0.75 * error < np.mean(drawn) < 1.25 * error and 0.4 * error < min(drawn) < max(drawn) < 1.9 * error
    assert 0.7 < np.mean(found) / np.mean(drawn) < 1.1 and np.corrcoef(drawn, found)[0, 1] > 0.8


def test_every_modality_of_a_case_lies_elsewhere_and_the_error_scales():
    one, two = (displacement(e, (32, 32, 32), 0, 1, "t1") for e in (0.5, 1.0))
    assert np.allclose(2 * one, two, rtol=0.05, atol=0.02)
    assert abs(np.corrcoef(one.ravel(), displacement(0.5, (32, 32, 32), 0, 1, "t2").ravel())[0, 1]) < 0.9


@pytest.mark.parametrize("noise, low, high", [(0.5, 0.88, 0.97), (1.0, 0.8, 0.93)])
def test_label_noise_displaces_boundaries_by_what_is_said(noise, low, high):
    settings = PhantomSettings(size=48, label_noise=noise)
    overlaps, distances = [], []
    for number in range(6):
        anatomy = make_anatomy(settings.size, 0, number)
        drawn = training_labels(settings, number)
        assert np.array_equal(np.unique(drawn), [0, 1, 2, 3]) and (drawn[~anatomy.brain] == 0).all()
        for least in (1, 2):
            overlaps.append(dice(drawn >= least, anatomy.labels >= least))
        true, made = anatomy.labels >= 1, drawn >= 1
        surface = made & (distance_transform_edt(made) <= 1) & (distance_transform_edt(anatomy.brain) > 3)
        away = np.where(true, distance_transform_edt(true) - 1, distance_transform_edt(~true))  # of surface voxels
        distances.append(away[surface].mean())
    assert low < np.mean(overlaps) < high
    assert 0.4 * noise < np.mean(distances) < 1.2 * noise  # of a normal error 0.8


def test_label_noise_adds_islands_of_enhancement_and_gaps(monkeypatch):
    settings = PhantomSettings(size=40, label_noise=1)
    drawn = np.stack([training_labels(settings, number) for number in range(6)])
    monkeypatch.setattr(phantom_labels, "_islands", lambda *_: [])
    plain = np.stack([training_labels(settings, number) for number in range(6)])
    changed = drawn != plain
    assert set(zip(plain[changed].tolist(), drawn[changed].tolist())) == {(1, 3), (3, 2)}


def test_only_labels_of_training_cases_are_noisy(tmp_path):
    settings = PhantomSettings(size=24, modalities=2, label_noise=0.8)
    write_dataset(tmp_path, 7, "Toy", settings, 2, 2)
    folder = tmp_path / "Dataset007_Toy"
    read = lambda path: np.asarray(nib.load(folder / path).dataobj)  # noqa: E731
    for i in range(2):
        assert np.array_equal(read(f"labelsTs/test_{i:03d}.nii.gz"), make_case(settings, FIRST_TEST_NUMBER + i)[1])
        assert np.array_equal(read(f"labelsTr/case_{i:03d}.nii.gz"), training_labels(settings, i))
        assert not np.array_equal(training_labels(settings, i), make_case(settings, i)[1])
    assert json.loads((folder / "dataset.json").read_text())["phantom"]["label_noise"] == 0.8


@pytest.mark.parametrize("size, modalities", [(32, 2), (32, 8), ((24, 40, 32), 4), (160, 2)])
def test_the_preset_at_any_size_and_number_of_modalities(size, modalities):
    settings = preset_settings("brats_like", size=size, modalities=modalities, seed=5)
    images, _ = make_case(settings, 0)
    assert images.shape == (modalities, *settings.size) and np.isfinite(images).all() and images.max() < 32767
    assert all(np.array_equal(image > 0, images[0] > 0) for image in images)
    assert size == 160 or np.array_equal(np.unique(training_labels(settings, 0)), [0, 1, 2, 3])


def test_the_command_takes_a_preset_and_flags_beside_it(tmp_path, monkeypatch, capsys):
    assert phantom_command.run(["-o", str(tmp_path), "-d", "7", "--preset", "brats_like", "--size", "24", "--num_training",
                                "1", "--num_test", "0", "--label_noise", "0", "--no-invisible"]) == 0
    recorded = json.loads((tmp_path / "Dataset007_Phantom/dataset.json").read_text())["phantom"]
    expected = {k: v for k, v in PRESETS["brats_like"].items() if k not in ("label_noise", "invisible")}
    assert {k: recorded[k] for k in expected} == expected and {"label_noise", "invisible"}.isdisjoint(recorded)
    for flag, value, message in (("--scanners", "-1", "scanners must be from 0"), ("--label_noise", "9", "from 0 to 3"),
                                 ("--registration_error", "nan", "from 0 to 4"), ("--lookalikes", "11", "from 0 to 10")):
        monkeypatch.setattr(sys, "argv", ["command", "-o", str(tmp_path), flag, value])
        with pytest.raises(SystemExit) as stop:
            phantom_command.main()
        assert stop.value.code == 1 and message in capsys.readouterr().err


@pytest.mark.parametrize("wrong, message", [
    ({"contrasts": "brats"}, "unknown contrasts.*brats_like"), ({"scanners": 1.5}, "whole number"),
    ({"label_noise": -0.1}, "label_noise must be"), ({"registration_error": 5}, "from 0 to 4")])
def test_unknown_values_of_ingredients_are_refused(wrong, message):
    with pytest.raises(NnmissError, match=message):
        PhantomSettings(**wrong)


def test_an_unknown_preset_is_refused():
    with pytest.raises(NnmissError, match="brats_like"):
        preset_settings("brats")
