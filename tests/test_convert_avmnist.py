"""The 1,500-pair AV-MNIST and the digits of all recordings: which clip goes with which image, splits, missing tables."""
from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pandas as pd
import pytest
from brats_folders import run_converter
from sample_sources import (
    REAL_DATA,
    manifest_of,
    read_back,
    values_of,
    write_mnist,
    write_recordings,
    write_wav,
)

from nnmiss.availability import read_missing_table
from nnmiss.dataset_conversion import avmnist, fsdd_smnist
from nnmiss.dataset_conversion.mnist_files import read_mnist
from nnmiss.errors import NnmissError

AUDIO_RATES = {"05": 45, "10": 90, "15": 135, "20": 180, "30": 270, "50": 450}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    return write_mnist(root / "mnist"), write_recordings(root / "fsdd" / "recordings")


@pytest.fixture(scope="module")
def written(sources, tmp_path_factory):
    return avmnist.convert(sources, tmp_path_factory.mktemp("raw"), 850, avmnist.Options())


@pytest.fixture
def run(monkeypatch, capsys):
    return partial(run_converter, monkeypatch, capsys)


def published(sources):
    """The pairs by SMIL's folders: images exported as files named by position, both listed as text, taken by position."""
    mnist, pairs = read_mnist(sources[0]), {}
    for digit in range(10):
        listed = [sorted(f"{i}.png" for i in half.positions(digit)) for half in (mnist.train, mnist.test)]
        clips = sorted(f"{digit}_{s}_{t}.wav" for s in ("jackson", "nicolas", "theo") for t in range(50))
        take = {clip: int(clip[:-4].rsplit("_", 1)[1]) for clip in clips}
        train = [c for s in ("jackson", "nicolas", "theo") for c in clips if s in c and take[c] >= 15]
        test = [c for c in clips if take[c] < 15]
        pairs |= {c[:-4]: ("train", int(i[:-4])) for c, i in zip(train, listed[0][:105])}
        pairs |= {c[:-4]: ("test", int(i[:-4])) for c, i in zip(test, listed[1][-45:])}
    return mnist, pairs


def test_pairs_are_those_of_the_published_loaders(sources, written):
    mnist, pairs = published(sources)
    manifest, images = manifest_of(written.folder), values_of(written.folder, "images.npz")
    assert set(manifest.index) == set(pairs) == set(images)
    for sample, (part, index) in pairs.items():
        row = manifest.loc[sample]
        assert (row["split"] == "test") == (part == "test") and row["mnist_index"] == str(index)
        assert row["label"] == sample[0] and row["sound"] == f"sound/{sample}.wav"
        half = mnist.test if part == "test" else mnist.train
        assert np.array_equal(images[sample], half.images[index]) and half.labels[index] == int(sample[0])
    sound = written.folder / "sound" / "3_theo_17.wav"
    assert sound.read_bytes() == (sources[1] / "3_theo_17.wav").read_bytes()


def test_split_is_900_150_450_and_validation_has_every_speaker_alike(written):
    manifest = manifest_of(written.folder)
    assert Counter(manifest["split"]) == {"train": 900, "val": 150, "test": 450}
    cells = manifest.groupby(["split", "label", "speaker"]).size().unstack([1, 2])
    assert (cells.loc["train"] == 30).all() and (cells.loc["val"] == 5).all() and (cells.loc["test"] == 15).all()
    assert {part: len(ids) for part, ids in written.parts.items()} == {"train": 900, "val": 150, "test": 450}


@pytest.mark.parametrize("name, modality", [("audio", "sound"), ("visual", "image")])
def test_missing_tables_keep_a_share_of_the_training_pairs_evenly_and_nested(written, name, modality):
    training = set(written.parts["train"])
    smaller: set[str] = set()
    for rate, count in AUDIO_RATES.items():
        table = read_missing_table(written.folder / "missing" / f"{name}_{rate}.csv", list(avmnist.MODALITIES))
        assert set(table) == training  # validation and test samples stay whole
        kept = {s for s, row in table.items() if row[avmnist.MODALITIES.index(modality)]}
        assert len(kept) == count and smaller <= kept
        assert all(row[1 - avmnist.MODALITIES.index(modality)] for row in table.values())
        for part in (lambda s: s[0], lambda s: s.split("_")[1]):
            spread = Counter(map(part, kept)).values()
            assert max(spread) - min(spread) <= 1
        smaller = kept


def test_other_seeds_draw_other_tables_under_other_names(sources, tmp_path):
    summary = avmnist.convert(sources, tmp_path, 850, avmnist.Options(missing_seeds=(0, 4)))
    assert {"audio_15", "audio_15_s4", "visual_50_s4"} <= set(summary.tables)
    first, second = (pd.read_csv(summary.folder / "missing" / f"audio_15{s}.csv") for s in ("", "_s4"))
    assert first["sound"].sum() == second["sound"].sum() == 135 and not first.equals(second)


def test_damaged_and_absent_recordings_are_named_and_no_other_pair_moves(sources, written, tmp_path, run):
    import shutil

    broken = shutil.copytree(sources[1], tmp_path / "recordings")
    (broken / "0_jackson_15.wav").write_bytes((broken / "0_jackson_15.wav").read_bytes()[:60])
    (broken / "1_theo_3.wav").unlink()
    write_wav(broken / "2_theo_3.wav", rate=16000)
    (broken / "3_theo_3.wav").write_bytes(b"not a recording")
    done = run("avmnist", "-i", sources[0], broken, "-o", tmp_path / "raw", "-d", 850)
    assert done.returncode == 1
    for name, reason in (("0_jackson_15", "truncated"), ("1_theo_3", "does not exist"), ("2_theo_3", "16000"),
                         ("3_theo_3", "no whole wav")):
        line = next(line for line in done.stderr.split("\n") if line.startswith(f"error: {name} was not converted"))
        assert reason in line
    manifest, whole = manifest_of(tmp_path / "raw/Dataset850_AVMNIST1500"), manifest_of(written.folder)
    assert len(manifest) == 1496 and manifest.equals(whole.loc[manifest.index])
    table = pd.read_csv(tmp_path / "raw/Dataset850_AVMNIST1500/missing/audio_05.csv")
    assert "0_jackson_15" not in set(table["case"]) and len(table) == 899


def test_wrong_folders_and_damaged_idx_files_are_refused(sources, tmp_path):
    convert = partial(avmnist.convert, output=tmp_path / "raw", dataset_id=850, options=avmnist.Options())
    with pytest.raises(NnmissError, match="two folders"):
        convert([sources[0]])
    with pytest.raises(NnmissError, match="neither"):
        convert([sources[0], tmp_path])
    with pytest.raises(NnmissError, match="images of the digit"):
        convert([write_mnist(tmp_path / "few", per_digit=20), sources[1]])
    broken = write_mnist(tmp_path / "broken", per_digit=2)
    whole = (broken / "t10k-images-idx3-ubyte").read_bytes()
    (broken / "t10k-images-idx3-ubyte").write_bytes(whole[:-5])
    with pytest.raises(NnmissError, match=r"t10k-images-idx3-ubyte.*truncated"):
        convert([broken, sources[1]])
    assert not (tmp_path / "raw").exists()


def test_sources_may_come_in_any_order_and_the_recordings_by_their_parent(sources, written, tmp_path):
    summary = avmnist.convert([sources[1].parent, sources[0]], tmp_path, 850, avmnist.Options(mfcc="sane"))
    assert manifest_of(summary.folder).equals(manifest_of(written.folder))


def test_planning_reads_what_was_written(written):
    pytest.importorskip("librosa")
    raw = read_back(written.folder)
    assert len(raw) == 1500 and raw.available.all() and raw.values["image"][0].shape == (1, 28, 28)


@pytest.mark.skipif(not (REAL_DATA / "avmnist").is_dir(), reason=f"no real data in {REAL_DATA} (set NNMISS_TEST_DATA)")
def test_real_pairs_and_mfcc_are_those_of_the_independent_reference(tmp_path):
    pytest.importorskip("librosa")
    summary = avmnist.convert([REAL_DATA / "mnist", REAL_DATA / "fsdd" / "recordings"], tmp_path, 850, avmnist.Options())
    assert not summary.notes and not summary.failed
    reference = np.load(REAL_DATA / "avmnist" / "avmnist.npz")
    raw = read_back(summary.folder)
    order = {f"{name}.wav": i for i, name in enumerate(raw.ids)}
    rows = [order[name] for name in reference["audio_file"]]
    assert sorted(rows) == list(range(1500))
    assert [raw.split[i] for i in rows] == reference["split"].tolist()
    assert np.array_equal(raw.targets[rows].numpy(), reference["label"])
    for name, key in (("image", "image"), ("sound", "mfcc")):
        values = np.stack([raw.values[name][raw.row[name][i]] for i in rows])[:, 0]
        if name == "image":
            assert np.array_equal(values, reference[key])
        else:
            np.testing.assert_allclose(values, reference[key], rtol=1e-4, atol=5e-3)


def convert_all(sources, tmp_path, **options):
    summary = fsdd_smnist.convert(sources, tmp_path, 851, fsdd_smnist.Options(overwrite=True, **options))
    return manifest_of(summary.folder), summary


def test_takes_decide_the_split_of_all_recordings_and_no_image_is_drawn_twice(sources, tmp_path):
    with pytest.raises(NnmissError, match="fewer images of the digit"):
        convert_all(sources, tmp_path)  # 110 images, 120 clips of a digit that are no test clips
    few = write_recordings(tmp_path / "few", speakers=("george", "lucas"), takes=50)
    manifest, summary = convert_all((sources[0], few), tmp_path)
    takes = manifest.groupby("split")["take"].agg(lambda t: (min(map(int, t)), max(map(int, t))))
    assert takes.to_dict() == {"test": (0, 9), "val": (10, 14), "train": (15, 49)}
    for part in (manifest["split"] == "test", manifest["split"] != "test"):
        assert manifest.loc[part, "mnist_index"].is_unique
    mnist, images = read_mnist(sources[0]), values_of(summary.folder, "images.npz")
    for sample, row in manifest.iterrows():
        half, index = mnist.test if row["split"] == "test" else mnist.train, int(row["mnist_index"])
        assert half.labels[index] == int(row["label"]) == int(sample[0])
        assert np.array_equal(images[sample], half.images[index])
    again, _ = convert_all((sources[0], few), tmp_path)
    other, _ = convert_all((sources[0], few), tmp_path, seed=1)
    assert again.equals(manifest) and not other["mnist_index"].equals(manifest["mnist_index"])


def test_unpaired_clips_and_extra_images_are_training_rows_of_one_modality(sources, tmp_path):
    few = write_recordings(tmp_path / "few", speakers=("george", "lucas"), takes=20)
    manifest, summary = convert_all((sources[0], few), tmp_path, pairs=40, extra_images=70)
    alone = manifest[(manifest["sound"] == "") | (manifest["mnist_index"] == "")]
    assert set(alone["split"]) == {"train"} and (manifest["sound"] == "").sum() == 70
    assert (manifest["mnist_index"] == "").sum() == 100 - 40  # takes 15 to 19 of 10 digits and 2 speakers
    paired = manifest[(manifest["split"] == "train") & (manifest["sound"] != "") & (manifest["mnist_index"] != "")]
    assert set(paired.groupby(["label", "speaker"]).size()) == {2}
    assert manifest.loc[manifest["split"] != "test", "mnist_index"].replace("", np.nan).dropna().is_unique
    pytest.importorskip("librosa")
    raw = read_back(summary.folder)
    assert raw.available.sum(0).tolist() == [len(manifest) - 60, len(manifest) - 70]
    with pytest.raises(NnmissError, match="--extra_images"):
        convert_all((sources[0], few), tmp_path, extra_images=100_000)
    with pytest.raises(NnmissError, match="leave no clip"):
        convert_all((sources[0], few), tmp_path, test_takes=15, val_takes=5)
