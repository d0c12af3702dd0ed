"""UPMC Food-101: images and titles joined by name, embeddings from a file or a language model in a folder."""
from __future__ import annotations

import importlib.util
import json
from functools import partial

import numpy as np
import pytest
import torch
from brats_folders import run_converter
from sample_sources import content_of, manifest_of, read_back, values_of, write_image

from nnmiss.dataset_conversion import food101
from nnmiss.dataset_conversion.title_embeddings import embed_texts
from nnmiss.errors import NnmissError
from nnmiss.networks.text_encoder import quiet_transformers

CLASSES = ("apple_pie", "waffles")
TITLE = 'Grandma\'s "best", easy {} recipe no. {}'  # with commas and quotes, as titles of web pages


@pytest.fixture
def source(tmp_path):
    """images/PART/CLASS/CLASS_N.jpg and texts/PART_titles.csv without header, as on Kaggle."""
    folder = tmp_path / "food"
    (folder / "texts").mkdir(parents=True)
    for part, numbers in (("train", range(10)), ("test", range(10, 14))):
        lines = []
        for dish in CLASSES:
            for n in numbers:
                write_image(folder / "images" / part / dish / f"{dish}_{n}.jpg", seed=n)
                title = TITLE.format(dish, n).replace('"', '""')
                lines.append(f'{dish}_{n}.jpg,"{title}",{dish}\n')
        (folder / "texts" / f"{part}_titles.csv").write_text("".join(lines), "utf-8")
    return folder


@pytest.fixture
def embeddings(tmp_path):
    ids = [f"{dish}_{n}" for dish in CLASSES for n in range(14)]
    np.savez(tmp_path / "text.npz", ids=np.array(ids), values=np.arange(28 * 4).reshape(28, 4) / 10)
    return str(tmp_path / "text.npz")


def convert(source, tmp_path, **options):
    return food101.convert([source], tmp_path / "raw", 855,
                           food101.Options(overwrite=True, disable_progress_bar=True, **options))


def test_images_titles_and_embeddings_are_joined_by_name(source, embeddings, tmp_path):
    summary = convert(source, tmp_path, text_embeddings=embeddings, val=0.2, image_size=16)
    manifest, text = manifest_of(summary.folder), values_of(summary.folder, "text.npz")
    assert {p: len(ids) for p, ids in summary.parts.items()} == {"train": 16, "val": 4, "test": 8}
    assert manifest[manifest["split"] == "val"]["label"].value_counts().tolist() == [2, 2]
    for sample, row in manifest.iterrows():
        dish, n = sample.rsplit("_", 1)
        part = "test" if int(n) >= 10 else "train"
        assert CLASSES[int(row["label"])] == dish and (row["split"] == "test") == (part == "test")
        assert row["title"] == TITLE.format(dish, n)
        image = source / "images" / part / dish / f"{sample}.jpg"
        assert (summary.folder / row["image"]).read_bytes() == image.read_bytes()
        np.testing.assert_allclose(text[sample], (np.arange(4) + 4 * (14 * CLASSES.index(dish) + int(n))) / 10, rtol=1e-6)
    raw = read_back(summary.folder)
    assert raw.available.all() and raw.values["image"][0].shape == (3, 16, 16)


def test_a_split_file_decides_and_samples_may_lack_an_image_or_a_title(source, embeddings, tmp_path, monkeypatch, capsys):
    names = [f"{dish}_{n}.jpg" for dish in CLASSES for n in range(14)]
    parts = {"train": names[:9], "val": names[9:12] + names[14:20], "test": names[20:-1]}
    (source / "split.json").write_text(json.dumps(parts))
    (source / "images/train/apple_pie/apple_pie_0.jpg").unlink()
    lines = (source / "texts/train_titles.csv").read_text().splitlines(keepends=True)
    (source / "texts/train_titles.csv").write_text("".join(lines[:1] + lines[2:]))
    broken = source / "images/train/waffles/waffles_3.jpg"
    broken.write_bytes(b"<html>not found</html>")
    done = run_converter(monkeypatch, capsys, "food101", "-i", source, "-o", tmp_path / "raw",
                         "--text_embeddings", embeddings)
    assert done.returncode == 1 and "error: waffles_3 was not converted" in done.stderr and "no JPEG or PNG" in done.stderr
    assert "1 samples have no image: apple_pie_0" in done.stdout and "1 samples have no title: apple_pie_1" in done.stdout
    assert "3 samples that split.json does not name were left out" in done.stdout
    manifest = manifest_of(tmp_path / "raw" / "Dataset855_Food101")
    assert manifest.loc["apple_pie_0", "image"] == "" and manifest.loc["apple_pie_1", "title"] == ""
    assert manifest["split"].value_counts().to_dict() == {"train": 9, "val": 8, "test": 7}
    read_back(tmp_path / "raw" / "Dataset855_Food101")


def test_names_that_stand_twice_are_no_guess(source, embeddings, tmp_path):
    with open(source / "texts" / "train_titles.csv", "a") as file:
        file.write("apple_pie_0.jpg,a second title,apple_pie\n")
    summary = convert(source, tmp_path, text_embeddings=embeddings)
    assert list(summary.failed) == ["apple_pie_0"] and "train_titles.csv more than once" in summary.failed["apple_pie_0"]
    parts = {"train": ["apple_pie_1.jpg", "waffles_1.jpg"], "val": ["waffles_2.jpg"], "test": ["apple_pie_1.jpg"]}
    (source / "split.json").write_text(json.dumps(parts))
    with pytest.raises(NnmissError, match="more than one part: apple_pie_1"):
        convert(source, tmp_path, text_embeddings=embeddings)


@pytest.fixture
def encoder(tmp_path):
    """A tiny BERT with random weights, as save_pretrained writes it."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("the package transformers is not installed")
    folder, letters = tmp_path / "encoder", "abcdefghijklmnopqrstuvwxyz0123456789_,.'\""
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    with quiet_transformers() as transformers:
        transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
        config = transformers.BertConfig(vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                         intermediate_size=16, max_position_embeddings=90)
        transformers.BertModel(config).eval().save_pretrained(folder)
    return folder


def test_a_model_in_a_folder_encodes_titles_as_the_mean_over_their_tokens(source, encoder, tmp_path):
    summary = convert(source, tmp_path, text_encoder=str(encoder))
    text = values_of(summary.folder, "text.npz")
    with quiet_transformers() as transformers:
        model, tokenizer = (c.from_pretrained(encoder) for c in (transformers.BertModel, transformers.BertTokenizerFast))
    for sample, row in list(manifest_of(summary.folder).iterrows())[::7]:  # one by one: padding changes nothing
        with torch.no_grad():
            hidden = model.eval()(**tokenizer(row["title"], return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(text[sample], hidden.mean(0).numpy(), atol=1e-5)
    assert content_of(summary.folder, "provenance.json")["options"]["text_encoder"] == str(encoder)


def test_pickled_and_incomplete_models_are_refused(encoder, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(encoder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "word_embeddings" not in k}, encoder / "model.safetensors",
              metadata={"format": "pt"})
    with pytest.raises(NnmissError, match="lacks weights"):
        embed_texts(["a"], encoder)
    (encoder / "model.safetensors").unlink()
    torch.save(weights, encoder / "pytorch_model.bin")
    with pytest.raises(NnmissError, match="holds no text encoder"):
        embed_texts(["a"], encoder)


def test_other_folders_and_unusable_embeddings_are_refused(source, embeddings, tmp_path):
    refused = partial(pytest.raises, NnmissError)
    with refused(match="--text_embeddings FILE, or"):
        convert(source, tmp_path)
    with refused(match="does not exist"):
        convert(source, tmp_path, text_embeddings=str(tmp_path / "nowhere.npz"))
    ids = np.array(["apple_pie_0", "apple_pie_0"])
    for values, message in ((np.ones((2, 3)), "more than once"), (np.ones(3), "expected an npz"),
                            (np.array([{}, {}]), "cannot be read")):
        np.savez(tmp_path / "bad.npz", ids=ids, values=values)
        with refused(match=message):
            convert(source, tmp_path, text_embeddings=str(tmp_path / "bad.npz"))
    np.savez(tmp_path / "bad.npz", ids=np.array(["apple_pie_0"]), values=np.full((1, 3), np.nan))
    with refused(match="NaN or infinite numbers: apple_pie_0"):
        convert(source, tmp_path, text_embeddings=str(tmp_path / "bad.npz"))
    for values in (np.ones((1, 0)), np.ones((1, 2, 2)), np.array([["a"]])):
        np.savez(tmp_path / "bad.npz", ids=np.array(["apple_pie_0"]), values=values)
        with refused(match=r"expected vectors \(n, D\)"):
            convert(source, tmp_path, text_embeddings=str(tmp_path / "bad.npz"))
    for share in (1.0, -0.1):
        with refused(match=r"--val .* from 0 to below 1"):
            convert(source, tmp_path, text_embeddings=embeddings, val=share)
    (source / "texts" / "test_titles.csv").write_text("apple_pie_10.jpg,apple_pie\n")
    with refused(match="2 columns"):
        convert(source, tmp_path, text_embeddings=embeddings)
    with refused(match="no images such as"):
        convert(tmp_path, tmp_path, text_embeddings=embeddings)
