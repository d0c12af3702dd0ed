"""S-MNIST: the six official files, splits that repeated clips do not cross, rows for teachers."""
from __future__ import annotations

import numpy as np
import pytest
from sample_sources import content_of, manifest_of, read_back, values_of

from nnmiss.dataset_conversion import smnist
from nnmiss.errors import NnmissError

COUNTS = {"train": 300, "test": 60}


@pytest.fixture
def source(tmp_path):
    """The official six files; as there, clips are repeated to match the number of images."""
    folder, rng = tmp_path / "smnist", np.random.default_rng(0)
    folder.mkdir()
    for part, count in COUNTS.items():
        labels = rng.integers(0, 10, count)
        clips = rng.normal(size=(count, 507))
        for row in range(count):  # every other row repeats an earlier clip of its digit, if there is one
            earlier = np.flatnonzero(labels[:row] == labels[row])
            if row % 2 and len(earlier):
                clips[row] = clips[rng.choice(earlier)]
        np.save(folder / f"data_wr_{part}.npy", rng.integers(0, 256, (count, 784)) / 255)
        np.save(folder / f"data_sp_{part}.npy", clips)
        np.save(folder / f"labels_{part}.npy", labels)
    return folder


def convert(source, tmp_path, **options):
    numbers = {"train": 100, "val": 40, "test": 30, **options}
    return smnist.convert([source], tmp_path / "raw", 852, smnist.Options(overwrite=True, **numbers))


def test_samples_hold_their_rows_of_the_files(source, tmp_path):
    summary = convert(source, tmp_path)
    assert {part: len(ids) for part, ids in summary.parts.items()} == {"train": 100, "val": 40, "test": 30}
    images, sounds = (values_of(summary.folder, f"{name}.npz") for name in ("images", "sounds"))
    manifest = manifest_of(summary.folder)
    for sample, row in manifest.iterrows():
        part, index = sample.split("_")
        assert (part == "test") == (row["split"] == "test")
        written, spoken, label = (np.load(source / f"{k}_{part}.npy")[int(index)] for k in ("data_wr", "data_sp", "labels"))
        assert np.array_equal(images[sample], np.rint(written * 255).reshape(28, 28)) and images[sample].dtype == np.uint8
        np.testing.assert_allclose(sounds[sample], spoken.reshape(1, 39, 13), rtol=1e-6)
        assert row["label"] == str(label)
    raw = read_back(summary.folder)
    assert raw.values["sound"][0].shape == (1, 39, 13) and raw.available.all()


def test_no_clip_lies_in_two_splits_though_the_database_repeats_clips(source, tmp_path):
    summary = convert(source, tmp_path, train=0, val=60)
    sounds, manifest = values_of(summary.folder, "sounds.npz"), manifest_of(summary.folder)
    splits_of, subject_of = {}, {}
    for sample, row in manifest.iterrows():
        splits_of.setdefault(sounds[sample].tobytes(), set()).add(row["split"])
        subject_of.setdefault(sounds[sample].tobytes(), set()).add(row["subject_id"])
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert all(len(subjects) == 1 for subjects in subject_of.values()) and len(subject_of) < len(manifest)
    with pytest.raises(NnmissError, match="repeat their clips"):
        convert(source, tmp_path, train=240, val=60)


def test_clips_of_the_test_files_that_training_files_repeat_are_heard_by_nobody_else(source, tmp_path):
    spoken = np.load(source / "data_sp_train.npy")
    spoken[:60] = np.load(source / "data_sp_test.npy")
    np.save(source / "data_sp_train.npy", spoken)
    summary = convert(source, tmp_path, teacher_rows=True, test=0)
    manifest, sounds = manifest_of(summary.folder), values_of(summary.folder, "sounds.npz")
    tested = {sounds[s].tobytes() for s in sounds if manifest.loc[s, "split"] == "test"}
    assert not tested & {sounds[s].tobytes() for s in sounds if manifest.loc[s, "split"] != "test"}
    read_back(summary.folder)  # planning would refuse subjects on two sides


def test_teacher_rows_have_one_modality_and_no_clip_that_validates(source, tmp_path):
    summary = convert(source, tmp_path, teacher_rows=True)
    manifest, sounds = manifest_of(summary.folder), values_of(summary.folder, "sounds.npz")
    extra = [s for s in manifest.index if s.endswith(("_image", "_sound"))]
    assert sum(s.endswith("_image") for s in extra) == COUNTS["train"] - 140
    assert set(manifest.loc[extra, "split"]) == {"train"}
    heard = {sounds[s].tobytes() for s in sounds if s.endswith("_sound")}
    assert len(heard) == sum(s.endswith("_sound") for s in extra) > 0  # each clip once
    assert not heard & {sounds[s].tobytes() for s in manifest.index[manifest["split"] == "val"]}
    raw = read_back(summary.folder)
    assert (raw.available.sum(1) == 1).sum() == len(extra)


def test_files_of_whole_numbers_and_one_hot_labels_mean_the_same(source, tmp_path):
    first = convert(source, tmp_path)
    before = values_of(first.folder, "images.npz"), manifest_of(first.folder)
    for part in COUNTS:
        written, labels = np.load(source / f"data_wr_{part}.npy"), np.load(source / f"labels_{part}.npy")
        np.save(source / f"data_wr_{part}.npy", np.rint(written * 255).astype(np.uint8))
        np.save(source / f"labels_{part}.npy", np.eye(10)[labels])
    second = convert(source, tmp_path)
    after = values_of(second.folder, "images.npz")
    assert before[1].equals(manifest_of(second.folder))
    assert all(np.array_equal(before[0][s], after[s]) for s in after)
    assert content_of(second.folder, "provenance.json")["converter"] == "smnist"


def test_absent_pickled_and_unfitting_files_are_refused_by_name(source, tmp_path):
    spoken = np.load(source / "data_sp_test.npy")
    (source / "data_sp_test.npy").unlink()
    with pytest.raises(NnmissError, match=r"data_sp_test.npy does not exist"):
        convert(source, tmp_path)
    np.save(source / "data_sp_test.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(NnmissError, match=r"data_sp_test.npy cannot be read"):
        convert(source, tmp_path)
    np.save(source / "data_sp_test.npy", spoken[:, :100])
    with pytest.raises(NnmissError, match=r"data_sp_test.npy has shape \(60, 100\)"):
        convert(source, tmp_path)
    spoken[3, 3] = np.nan
    np.save(source / "data_sp_test.npy", spoken)
    with pytest.raises(NnmissError, match=r"data_sp_test.npy holds NaN"):
        convert(source, tmp_path)
    assert not (tmp_path / "raw").exists()
