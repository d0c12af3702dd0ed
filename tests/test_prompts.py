"""CLIP prompts: texts, embeddings by a tiny random CLIP on disk, the stored file, and what happens without an encoder."""
from __future__ import annotations

import builtins
import json
import string
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from nnmiss.errors import NnmissError
from nnmiss.networks import prompts, text_encoder
from nnmiss.networks.prompts import load_prompts, prepare_prompts, prompt_texts
from nnmiss.networks.text_encoder import encode_texts

NAMES = ["flair", "t1", "t1ce", "t2"]


def transformers_here():
    """The transformers package, as the code imports it; without it the test is skipped."""
    if find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    return text_encoder._import_transformers()


def write_tokenizer(folder: Path) -> int:
    """CLIP's tokenizer of single characters and one merge. Returns the size of its vocabulary."""
    characters = list(string.ascii_lowercase + string.digits + ".,+{}-")
    tokens = [*characters, *(c + "</w>" for c in characters), "th", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\n")
    return len(tokens)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A random CLIP text model of a few thousand parameters, as transformers saves one."""
    transformers = transformers_here()
    folder = tmp_path_factory.mktemp("clip")
    size = write_tokenizer(folder)
    config = transformers.CLIPTextConfig(vocab_size=size, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
                                         num_attention_heads=2, projection_dim=6, max_position_embeddings=77,
                                         bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1)
    torch.manual_seed(0)
    model = transformers.CLIPTextModelWithProjection(config)
    for parameter in model.parameters():  # its own start is too small to tell prompts apart in float32
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def block_of(folder, **more) -> dict:
    return {"prompt": "clip", "text_encoder": str(folder), "prompt_text": prompts.DEFAULT_TEXT, **more}


@pytest.fixture(autouse=True)
def nothing_asked_yet(monkeypatch):
    """As in a new process, that has not asked for any encoder."""
    monkeypatch.setattr(prompts, "UNAVAILABLE", {})


@pytest.fixture
def no_transformers(monkeypatch):
    """As if transformers were not installed."""
    imported = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "transformers":
            raise ImportError("No module named 'transformers'")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_rows_follow_the_subsets_code():
    texts = prompt_texts(NAMES)
    assert len(texts) == 15
    assert texts[0] == "The input MRI modalities are flair"
    assert texts[0b1101 - 1] == "The input MRI modalities are flair, t1ce, t2"
    assert texts[-1] == "The input MRI modalities are flair, t1, t1ce, t2"
    assert prompt_texts(["pet", "ct"], "Shown: {}.") == ["Shown: pet.", "Shown: ct.", "Shown: pet, ct."]


@pytest.mark.parametrize("template", ["modalities", "{} and {}"])
def test_a_template_without_one_place_for_the_names_is_refused(template, tmp_path, clip_folder):
    with pytest.raises(NnmissError, match="exactly once"):
        prepare_prompts(block_of(clip_folder, prompt_text=template), NAMES, tmp_path)


def test_embeddings_are_those_of_the_text_model(tmp_path, clip_folder):
    transformers = transformers_here()
    block = block_of(clip_folder)
    notes = prepare_prompts(block, NAMES, tmp_path)
    assert block["prompt"] == "clip"
    assert block["prompt_size"] == 6
    assert (tmp_path / block["prompt_file"]).is_file()
    assert len(notes) == 1
    found = load_prompts(block, NAMES, tmp_path)
    assert found.shape == (15, 6)
    assert found.dtype == torch.float32
    assert torch.cdist(found, found).fill_diagonal_(1).min() > 1e-3
    tokenizer = transformers.CLIPTokenizer.from_pretrained(str(clip_folder))
    model = transformers.CLIPTextModelWithProjection.from_pretrained(str(clip_folder)).eval()
    for code in (1, 6, 15):  # one prompt at a time, without padding
        names = ", ".join(name for i, name in enumerate(NAMES) if code >> i & 1)
        tokens = tokenizer([f"The input MRI modalities are {names}"], return_tensors="pt")
        with torch.no_grad():
            alone = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds[0]
        assert torch.allclose(found[code - 1], alone, atol=1e-5)


def test_the_stored_file_needs_no_transformers(tmp_path, clip_folder, no_transformers):
    block = block_of(clip_folder)
    with pytest.raises(NnmissError, match="transformers cannot be used"):
        prepare_prompts(dict(block), NAMES, tmp_path)
    texts = prompt_texts(NAMES)
    embeddings = np.arange(60, dtype=np.float32).reshape(15, 4)
    np.savez(tmp_path / prompts.prompt_file_name(texts, str(clip_folder)), embeddings=embeddings, texts=np.array(texts),
             text_encoder=np.array(str(clip_folder)), modalities=np.array(NAMES))
    prepare_prompts(block, NAMES, tmp_path)
    assert block["prompt_size"] == 4
    assert np.array_equal(load_prompts(block, NAMES, tmp_path).numpy(), embeddings)


def test_the_encoder_runs_once(tmp_path, clip_folder, monkeypatch):
    first, second = block_of(clip_folder), block_of(clip_folder)
    prepare_prompts(first, NAMES, tmp_path)
    monkeypatch.setattr(prompts, "encode_texts", lambda *_: pytest.fail("encoded again"))
    prepare_prompts(second, NAMES, tmp_path)
    assert first == second


def test_without_transformers_the_default_falls_back_and_says_so(tmp_path, no_transformers):
    block = {"prompt": "clip"}
    (note,) = prepare_prompts(block, NAMES, tmp_path)
    assert (block["prompt"], block["prompt_size"], block["prompt_file"]) == ("binary", 0, None)
    for said in ("transformers", 'pip install "nnmiss[clip]"', "prompt=binary", "ablation"):
        assert said in note
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_cannot_be_had_is_asked_for_once(tmp_path, monkeypatch):
    asked = []

    def unavailable(texts, encoder):
        asked.append(encoder)
        raise prompts.EncoderUnavailable("no answer")

    monkeypatch.setattr(prompts, "encode_texts", unavailable)
    notes = [prompts.prepare_prompts({"prompt": "clip"}, ["a", "b"], tmp_path) for _ in range(2)]
    assert len(asked) == 1 and notes[0] == notes[1] and "no answer" in notes[0][0]


def test_a_hub_that_cannot_be_reached_falls_back_only_for_the_default(tmp_path, monkeypatch):
    transformers = transformers_here()

    def unreachable(*_, **__):
        raise OSError("We couldn't connect to the hub\nmore")

    monkeypatch.setattr(transformers.CLIPTokenizer, "from_pretrained", unreachable)
    block = {"prompt": "clip", "text_encoder": prompts.DEFAULT_ENCODER}
    (note,) = prepare_prompts(block, NAMES, tmp_path)
    assert "couldn't connect" in note
    assert block["prompt"] == "binary"
    with pytest.raises(NnmissError, match=r"someone/clip.*couldn't connect.*prompt=binary"):
        prepare_prompts({"prompt": "clip", "text_encoder": "someone/clip"}, NAMES, tmp_path)


def test_only_safetensors_are_loaded(tmp_path, clip_folder):
    transformers_here()
    for name in ("config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).write_text((clip_folder / name).read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(NnmissError, match=r"cannot be loaded.*model\.safetensors"):
        prepare_prompts(block_of(tmp_path), NAMES, tmp_path)


def test_a_folder_that_is_absent_or_broken_is_an_error(tmp_path, clip_folder):
    transformers_here()
    with pytest.raises(NnmissError, match="no such folder"):
        prepare_prompts(block_of(tmp_path / "nothing"), NAMES, tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(NnmissError, match="cannot be loaded"):
        prepare_prompts(block_of(broken), NAMES, tmp_path)
    for file in clip_folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(NnmissError, match="cannot be loaded"):
        prepare_prompts(block_of(broken), NAMES, tmp_path)
    assert not list(tmp_path.glob("*.npz"))


def test_weights_that_lack_the_text_model_are_refused_and_not_left_random(tmp_path, clip_folder):
    transformers_here()
    from safetensors.torch import load_file, save_file

    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "text_projection" not in k}, tmp_path / "model.safetensors",
              metadata={"format": "pt"})
    with pytest.raises(NnmissError, match=r"lack parts.*text_projection"):
        prepare_prompts(block_of(tmp_path), NAMES, tmp_path)


def test_a_tokenizer_that_does_not_know_the_names_is_refused(tmp_path, clip_folder):
    transformers_here()
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(NnmissError, match="same embedding"):
        encode_texts(["shown äö", "shown üß"], str(tmp_path))


def test_a_full_clip_model_gives_its_text_half(tmp_path, clip_folder):
    transformers = transformers_here()
    text = transformers.CLIPTextConfig.from_pretrained(str(clip_folder)).to_dict()
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
              "patch_size": 4}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6))
    torch.nn.init.normal_(model.text_projection.weight)
    model.save_pretrained(tmp_path, safe_serialization=True)
    write_tokenizer(tmp_path)
    found, notes = encode_texts(["modalities are t1", "modalities are t2"], str(tmp_path))
    tokens = transformers.CLIPTokenizer.from_pretrained(str(tmp_path))(["modalities are t1"], return_tensors="pt")
    with torch.no_grad():
        pooled = model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
        expected = model.text_projection(pooled)[0].numpy()
    assert notes == []
    assert np.allclose(found[0], expected, atol=1e-5)


def test_eight_modalities_are_batched_and_too_long_prompts_are_said(tmp_path, clip_folder):
    transformers_here()
    block = block_of(clip_folder, prompt_text="m: {}")  # a token a character: 8 names are more than 77
    names = [f"modality{i}" for i in range(8)]
    notes = prepare_prompts(block, names, tmp_path)
    assert load_prompts(block, names, tmp_path).shape == (255, 6)
    assert "longer than CLIP's 77 tokens" in notes[0]


def test_a_stored_file_of_other_modalities_or_damaged_is_named(tmp_path, clip_folder):
    transformers_here()
    block = block_of(clip_folder)
    with pytest.raises(NnmissError, match=r"prompt_embeddings_\w+\.npz are not there"):
        load_prompts(block, NAMES, tmp_path)
    prepare_prompts(block, NAMES, tmp_path)
    with pytest.raises(NnmissError, match=rf"{block['prompt_file']} was written for other modalities"):
        load_prompts(block, ["flair", "t1", "t1ce", "pd"], tmp_path)
    path = tmp_path / block["prompt_file"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(NnmissError, match=rf"{block['prompt_file']} are damaged"):
        load_prompts(block, NAMES, tmp_path)


@pytest.mark.parametrize("prompt", ["binary", "none"])
def test_other_prompts_need_nothing(prompt, tmp_path, no_transformers):
    block = {"prompt": prompt, "prompt_text": "no place"}
    assert prepare_prompts(block, NAMES, tmp_path) == []
    assert (block["prompt"], block["prompt_size"], block["prompt_file"]) == (prompt, 0, None)
