"""CLIP's embedding of every subset's prompt ("The input MRI modalities are ..."), computed once, kept beside the plans."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from nnmiss.atomic_files import replacing
from nnmiss.errors import NnmissError
from nnmiss.networks.text_encoder import EncoderUnavailable, encode_texts

PROMPTS = ("clip", "binary", "none")
DEFAULT_ENCODER = "openai/clip-vit-base-patch32"
DEFAULT_TEXT = "The input MRI modalities are {}"  # the paper's template
FALLBACK = ("prompt=binary is used instead: an MLP of the modality code, the paper's ablation (its Fig. 5: mean Dice 73.82 "
            "instead of 74.32). ")

UNAVAILABLE: dict[str, str] = {}  # encoder -> why; a hub that does not answer costs seconds, so a process asks once


def prompt_texts(modalities: list[str], template: str = DEFAULT_TEXT) -> list[str]:
    """The prompts of all 2^M - 1 subsets; row r is the subset with code r + 1, modality 0 being the lowest bit.

    The names stand in channel order with ", " between them and no "and", so that a subset's prompt differs from another's
    in names only. Raises NnmissError unless `template` has {} exactly once.
    """
    if template.count("{}") != 1:
        raise NnmissError(f"prompt_text={template!r} must contain {{}} exactly once, where the modalities' names go: such "
                          f"as {DEFAULT_TEXT!r}")
    codes = range(1, 2 ** len(modalities))
    return [template.replace("{}", ", ".join(m for i, m in enumerate(modalities) if code >> i & 1)) for code in codes]


def prepare_prompts(block: dict, modalities: list[str], preprocessed_folder: Path) -> list[str]:
    """Sees to it that the embeddings of a run with prompt "clip" lie beside the plans, and completes its plan block.

    A stored file that fits is used, without transformers or a network. Else the text encoder is loaded, from a folder or
    the hub (safetensors only, no code from there), and the embeddings are stored. Without an encoder, a run that left
    `text_encoder` at its default goes on with prompt "binary"; one that named an encoder is not given something else.

    Args:
        block: the run's "nnmiss" block with "prompt", "text_encoder" and "prompt_text". Changed: "prompt_size" becomes the
            length D of an embedding, or 0 without prompts; "prompt_file" the file's name, or None; "prompt" may become
            "binary".
        modalities: names in channel order.
        preprocessed_folder: where the plans lie.

    Returns:
        Notes for the user.

    Raises:
        NnmissError: a template without {}; a named encoder that is absent, broken or cannot be loaded; a damaged file.
    """
    block.update(prompt_size=0, prompt_file=None)
    if block.get("prompt", "clip") != "clip":
        return []
    encoder = block.setdefault("text_encoder", DEFAULT_ENCODER)
    texts = prompt_texts(modalities, block.setdefault("prompt_text", DEFAULT_TEXT))
    path = Path(preprocessed_folder) / prompt_file_name(texts, encoder)
    notes = []
    if path.is_file():
        embeddings = _read(path, modalities, texts, encoder)
    else:
        try:
            if encoder in UNAVAILABLE:
                raise EncoderUnavailable(UNAVAILABLE[encoder])
            embeddings, notes = encode_texts(texts, encoder)
        except EncoderUnavailable as reason:
            UNAVAILABLE[encoder] = str(reason)
            if encoder != DEFAULT_ENCODER:
                raise NnmissError(f"text_encoder={encoder}: {reason}. Mend that, or --set prompt=binary to go without "
                                  "CLIP") from None
            block["prompt"] = "binary"
            return [f"no CLIP prompts: {reason}. {FALLBACK}For CLIP: pip install \"nnmiss[clip]\" where the hub can be "
                    f"reached, or --set text_encoder=FOLDER, or copy {path.name} from a machine that has it into "
                    f"{preprocessed_folder}; then start the run anew"]
        with replacing(path) as temporary:
            np.savez(temporary, embeddings=embeddings, texts=np.array(texts), text_encoder=np.array(encoder),
                     modalities=np.array(modalities))
    block.update(prompt_size=int(embeddings.shape[1]), prompt_file=path.name)
    return [*notes, f"prompts such as {texts[-1]!r}, encoded by {encoder}, are in {path}"]


def load_prompts(block: dict, modalities: list[str], preprocessed_folder: Path) -> Tensor:
    """The stored embeddings (2^M - 1, D) float32, in the order of `prompt_texts`.

    Args:
        block: the plan block that `prepare_prompts` completed.
        modalities: names in channel order.
        preprocessed_folder: where the plans lie.

    Raises:
        NnmissError: the file is absent, damaged, or of other modalities, prompts or another encoder.
    """
    texts = prompt_texts(modalities, block.get("prompt_text", DEFAULT_TEXT))
    encoder = block.get("text_encoder", DEFAULT_ENCODER)
    name = block.get("prompt_file") or prompt_file_name(texts, encoder)
    return torch.from_numpy(_read(Path(preprocessed_folder) / name, modalities, texts, encoder))


def prompt_file_name(texts: list[str], encoder: str) -> str:
    """Name of the file of these prompts; runs with other prompts or another encoder have files of their own."""
    return f"prompt_embeddings_{hashlib.sha256(json.dumps([texts, encoder]).encode()).hexdigest()[:8]}.npz"


def _read(path: Path, modalities: list[str], texts: list[str], encoder: str) -> np.ndarray:
    """(2^M - 1, D) float32 of a file that was written for exactly these."""
    if not path.is_file():
        raise NnmissError(f"the prompts' embeddings {path} are not there: run nnmiss_train again, which writes them, or "
                          "copy them from where the run was started")
    try:
        with np.load(path, allow_pickle=False) as stored:
            embeddings = np.asarray(stored["embeddings"], dtype=np.float32)
            said = [stored[key].tolist() for key in ("modalities", "texts", "text_encoder")]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise NnmissError(f"the prompts' embeddings {path} are damaged ({error}): delete the file") from None
    for what, found, expected in zip(("modalities", "prompts", "text encoder"), said, (modalities, texts, encoder)):
        if found != expected:
            raise NnmissError(f"{path} was written for other {what} ({_short(found)}, expected {_short(expected)}): "
                              "delete the file")
    if embeddings.ndim != 2 or len(embeddings) != len(texts) or not np.isfinite(embeddings).all():
        raise NnmissError(f"{path} holds embeddings of shape {embeddings.shape}, expected {len(texts)} rows of finite "
                          "numbers: delete the file")
    return embeddings


def _short(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value[:8])
