"""LUMA: pickled tables read without running them; rows of its tool; MIND's draw of pairs."""
from __future__ import annotations

import os
import pickle
import subprocess

import numpy as np
import pandas as pd
import pytest
from sample_sources import content_of, manifest_of, read_back, values_of, write_wav

from nnmiss.dataset_conversion import luma
from nnmiss.dataset_conversion.frame_pickles import read_frame
from nnmiss.errors import NnmissError

LABELS = ["man", "boy", "house", "roses"]


def images_table(count: int, seed: int, labels=LABELS) -> pd.DataFrame:
    """As LUMA's tool makes it from CIFAR's batches: views of a transposed array, one a cell."""
    arrays = np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32)).astype(np.uint8).transpose(0, 2, 3, 1)
    return pd.DataFrame({"image": list(arrays), "label": [labels[i % len(labels)] for i in range(count)],
                         "source": "cifar100"})


def recordings(folder, name, labels, seed):
    paths = [f"cv_audio/{name}_{i}.wav" for i in range(len(labels))]
    for i, path in enumerate(paths):
        write_wav(folder / "audio" / path, rate=16000, seed=seed + i)
    pd.DataFrame({"path": paths, "label": labels}).to_csv(folder / "audio" / f"datalist{name}.csv")


@pytest.fixture
def compiled(tmp_path):
    """What compile_dataset.py writes: row i of each file of a part belongs together; indices are those of the samples."""
    folder = tmp_path / "data"
    for part, count, seed in (("train", 40, 0), ("test", 12, 1)):
        table = images_table(count, seed)
        recordings(folder, f"_{part}", table["label"].tolist(), 100 * seed)
        table.index = np.random.default_rng(seed).permutation(count)
        table.to_pickle(folder / f"image_data_{part}.pickle")
    return folder


def convert(folder, tmp_path, **options):
    return luma.convert([folder], tmp_path / "raw", 854, luma.Options(overwrite=True, disable_progress_bar=True, **options))


def test_rows_of_the_tool_are_joined_by_position(compiled, tmp_path):
    summary = convert(compiled, tmp_path)
    manifest, images = manifest_of(summary.folder), values_of(summary.folder, "images.npz")
    assert {p: len(ids) for p, ids in summary.parts.items()} == {"train": 36, "val": 4, "test": 12}
    assert content_of(summary.folder)["labels"] == {"0": "man", "1": "boy", "2": "house", "3": "roses"}  # LUMA's order
    for part, seed, count in (("train", 0, 40), ("test", 1, 12)):
        table = images_table(count, seed)
        for i in range(count):
            row = manifest.loc[f"{part}_{i:05d}"]
            assert np.array_equal(images[row["sample_id"]], table["image"][i])
            assert LABELS[int(row["label"])] == table["label"][i] and (row["split"] == "test") == (part == "test")
            source = compiled / "audio" / "cv_audio" / f"_{part}_{i}.wav"
            assert (summary.folder / row["sound"]).read_bytes() == source.read_bytes()
    assert set(manifest[manifest["split"] == "val"]["label"]) == set("0123")  # a share of each class


def test_planning_reads_what_was_written_with_texts_from_a_file(compiled, tmp_path):
    pytest.importorskip("librosa")
    ids = [f"train_{i:05d}" for i in range(30)]
    np.savez(tmp_path / "text.npz", ids=np.array([*ids, "another"]), values=np.ones((31, 6)))
    raw = read_back(convert(compiled, tmp_path, text_embeddings=str(tmp_path / "text.npz")).folder)
    assert raw.available.sum(0).tolist() == [52, 52, 30] and raw.values["image"][0].shape == (3, 32, 32)
    np.savez(tmp_path / "text.npz", ids=np.array(["0", "1"]), values=np.ones((2, 6)))
    with pytest.raises(NnmissError, match="has none of the samples"):
        convert(compiled, tmp_path, text_embeddings=str(tmp_path / "text.npz"))


def test_bad_rows_are_named_and_label_noise_is_kept_when_asked_for(compiled, tmp_path):
    table = pd.read_csv(compiled / "audio" / "datalist_train.csv", index_col=0)
    table.loc[0, "label"] = "boy"
    table.loc[1, "path"] = "../../secret.wav"
    (compiled / "audio" / table.loc[2, "path"]).unlink()
    table.to_csv(compiled / "audio" / "datalist_train.csv")
    summary = convert(compiled, tmp_path)
    assert set(summary.failed) == {f"train_{i:05d}" for i in range(3)}
    for i, reason in enumerate(("labelled man, its recording boy", "outside the folder", "does not exist")):
        assert reason in summary.failed[f"train_{i:05d}"]
    noisy = convert(compiled, tmp_path, label_noise=True)
    assert "train_00000" not in noisy.failed and manifest_of(noisy.folder).loc["train_00000", "label"] == "0"
    table.iloc[:-1].to_csv(compiled / "audio" / "datalist_train.csv")
    with pytest.raises(NnmissError, match=r"40 rows.* 39: they are aligned by position"):
        convert(compiled, tmp_path)


def test_mind_draws_as_many_pairs_of_each_frequent_class(tmp_path):
    folder = tmp_path / "data"
    labels = [*["man"] * 30, *["boy"] * 30, *["bee"] * 30, *["fox"] * 5]
    tables = [images_table(len(labels), 3, labels), images_table(len(labels), 4, labels)]
    folder.mkdir()
    for table, name in zip(tables, ("image_data", "image_data_test")):
        table.to_pickle(folder / f"{name}.pickle")
    recordings(folder, "", labels[:75], 7)  # 15 of "bee", none of "fox"
    summary = convert(folder, tmp_path, protocol="mind", pairs=22)
    manifest, images = manifest_of(summary.folder), values_of(summary.folder, "images.npz")
    assert content_of(summary.folder)["labels"] == {"0": "man", "1": "boy"}
    assert manifest["label"].value_counts().tolist() == [22, 22] and manifest["recording"].is_unique
    assert {p: len(ids) for p, ids in summary.parts.items()} == {"train": 34, "val": 5, "test": 5}
    of_class = {image.tobytes(): name for t in tables for image, name in zip(t["image"], t["label"])}
    assert len({images[s].tobytes() for s in images}) == 44
    for sample, row in manifest.iterrows():
        number = int(row["recording"].removesuffix(".wav").rsplit("_", 1)[1])
        assert of_class[images[sample].tobytes()] == sample.split("_")[0] == labels[number]
    assert [round(33_000 * share) for share in (4 / 33, 4 / 33)] == [4000, 4000]  # MIND's numbers by the same rule
    with pytest.raises(NnmissError, match="fewer than two classes"):
        convert(folder, tmp_path, protocol="mind")
    with pytest.raises(NnmissError, match="--val and --test together"):
        convert(folder, tmp_path, protocol="mind", val=0.6, test=0.5)


@pytest.mark.parametrize("share", [1.0, -0.5, float("nan")])
def test_shares_that_leave_nothing_to_train_on_are_refused(compiled, tmp_path, share):
    with pytest.raises(NnmissError, match=r"--val .* from 0 to below 1"):
        convert(compiled, tmp_path, val=share)
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tables_are_read_as_pandas_reads_them(protocol, tmp_path):
    path = tmp_path / "table.pickle"
    table = images_table(7, 0).assign(number=range(7), share=np.linspace(0, 1, 7))
    table["fortran"] = [np.asfortranarray(image) for image in table["image"]]
    table = table.iloc[[4, 2, 6]].copy()
    table.to_pickle(path, protocol=protocol)
    read = read_frame(path)
    assert list(read.columns) == list(table.columns) and len(read) == 3
    for name in table:
        for ours, theirs in zip(read[name], pd.read_pickle(path)[name]):
            assert np.array_equal(ours, theirs)


def test_the_names_of_older_versions_are_known(tmp_path):
    path = tmp_path / "table.pickle"
    table = images_table(3, 0).astype({"label": object, "source": object})
    table.columns = table.columns.astype(object)
    table.to_pickle(path, protocol=2)  # in which names are text
    content = path.read_bytes()
    for new, old in ((b"numpy._core.", b"numpy.core."), (b"cpandas\nDataFrame\n", b"cpandas.core.frame\nDataFrame\n"),
                     (b"cpandas\nIndex\n", b"cpandas.core.indexes.base\nIndex\n"),
                     (b"cpandas\nRangeIndex\n", b"cpandas.core.indexes.range\nRangeIndex\n")):
        assert new in content
        content = content.replace(new, old)
    path.write_bytes(content)
    assert np.array_equal(read_frame(path)["image"][2], table["image"][2])


class Attack:
    """Whatever unpickles it calls `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(2, 6))  # of the older ones pandas' own tables are refused, too
def test_a_pickle_that_wants_to_run_something_is_refused_by_name_and_runs_nothing(compiled, tmp_path, protocol):
    sign = tmp_path / "it_ran"
    path = compiled / "image_data_train.pickle"
    for function, arguments, name in ((os.system, (f"touch {sign}",), "system"), (eval, ("1 + 1",), "eval"),
                                      (subprocess.Popen, (["touch", str(sign)],), "Popen"),
                                      (getattr, ("a", "upper"), "getattr"),
                                      (pd.read_pickle, (str(path),), "read_pickle"), (np.load, (str(path),), "load")):
        hidden = images_table(2, 0).assign(extra=[Attack(function, *arguments), 1])
        for attack in (Attack(function, *arguments), hidden):
            path.write_bytes(pickle.dumps(attack, protocol=protocol))
            with pytest.raises(NnmissError, match=rf"image_data_train.pickle is refused: it wants to call [\w.]*{name}"):
                convert(compiled, tmp_path)
    assert not sign.exists() and not (tmp_path / "raw").exists()


def test_arrays_within_arrays_within_arrays_are_refused_at_once(tmp_path):
    """Thirty arrays, each of which holds the one before twice, would be 2^30 when they are written out."""
    nested = np.array([1.0])
    for _ in range(30):
        outer = np.empty(2, object)
        outer[:] = [nested, nested]
        nested = outer
    table = images_table(2, 0)
    table["image"] = [nested, nested]
    table.to_pickle(tmp_path / "table.pickle")
    with pytest.raises(NnmissError, match="an array of objects"):
        read_frame(tmp_path / "table.pickle")


def test_damaged_and_strange_pickles_end_in_a_message(tmp_path):
    path, rng = tmp_path / "table.pickle", np.random.default_rng(0)
    images_table(2, 0).to_pickle(path)
    whole = path.read_bytes()
    read = 0
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
        path.write_bytes(content[: rng.integers(1, len(content))] if rng.random() < 0.2 else content)
        try:
            read += len(read_frame(path)) == 2
        except NnmissError as error:
            assert str(path) in str(error)
    assert 0 < read < 300
    for strange in ({"image": 1}, [1, 2], "text", images_table(2, 0)["label"]):
        path.write_bytes(pickle.dumps(strange))
        with pytest.raises(NnmissError, match="table"):
            read_frame(path)
    images_table(2, 0).drop(columns="image").to_pickle(tmp_path / "image_data_train.pickle")
    with pytest.raises(NnmissError, match="lacks the column image"):
        convert(tmp_path, tmp_path)
