"""CLIP's text model of the package `transformers`, an extra: prompts in, embeddings out."""
from __future__ import annotations

import re
import socket
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import numpy as np
import torch

from nnmiss.errors import NnmissError

AT_ONCE = 64  # prompts encoded together
HUB_SECONDS = 5  # to wait for a connection


class EncoderUnavailable(Exception):
    """Why the text encoder could not be had."""


@torch.inference_mode()
def encode_texts(texts: list[str], encoder: str) -> tuple[np.ndarray, list[str]]:
    """Embeddings (N, D) float32 by CLIP's text model and projection, not normalised; and notes.

    Raises:
        NnmissError: `encoder` is a folder that is absent or not a CLIP model.
        EncoderUnavailable: transformers is not installed, or the hub's model cannot be had.
    """
    with quiet_transformers() as transformers:
        tokenizer, model = _load(transformers, encoder)
        longest = model.config.max_position_embeddings  # CLIP: 77 tokens
        parts = []
        for start in range(0, len(texts), AT_ONCE):
            tokens = tokenizer(texts[start : start + AT_ONCE], padding="max_length", truncation=True, max_length=longest,
                               return_tensors="pt")
            parts.append(model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds)
        too_long = sum(len(ids) > longest for ids in tokenizer(texts)["input_ids"])
    embeddings = torch.cat(parts).numpy().astype(np.float32)  # (N, D)
    if not np.isfinite(embeddings).all():
        raise NnmissError(f"text_encoder={encoder} gives embeddings that are not finite: its weights are broken")
    if too_long:
        return embeddings, [f"{too_long} of {len(texts)} prompts are longer than CLIP's {longest} tokens and were cut: the "
                            "modalities named last in them do not count. Shorter names in channel_names help"]
    if len(np.unique(embeddings, axis=0)) < len(texts):
        raise NnmissError(f"text_encoder={encoder} gives several subsets the same embedding: its tokenizer does not know "
                          "the modalities' names, check vocab.json and merges.txt")
    return embeddings, []


def _load(transformers, encoder: str):
    """(tokenizer, model in evaluation mode, float32)."""
    folder = Path(encoder).expanduser()
    local = folder.is_dir()
    if not local and not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", encoder):
        raise NnmissError(f"text_encoder={encoder}: no such folder")
    source = str(folder) if local else encoder
    needed = "It needs config.json, model.safetensors, vocab.json and merges.txt (or tokenizer.json)"
    if local and not any((folder / f"model.safetensors{more}").is_file() for more in ("", ".index.json")):
        raise NnmissError(f"text_encoder={encoder}: this folder cannot be loaded as a CLIP model. {needed}; pickled "
                          "weights are never read")  # older versions of transformers would, whatever they are told
    offline = not local and not _hub_answers()  # else every file is asked for again and again, for minutes
    try:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(source, local_files_only=offline)
        model, report = transformers.CLIPTextModelWithProjection.from_pretrained(
            source, use_safetensors=True, output_loading_info=True, local_files_only=offline)  # never a pickle
    except Exception as error:  # OSError, the hub's and HTTP's own, safetensors', JSON's: they differ between versions
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        if local:
            raise NnmissError(f"text_encoder={encoder}: this folder cannot be loaded as a CLIP model ({reason}). "
                              f"{needed}") from None
        raise EncoderUnavailable(f"{encoder} is no folder here and cannot be had from the hub ({reason})") from None
    lacking = set(report["missing_keys"]) & {name for name, _ in model.named_parameters()}
    if lacking or report["mismatched_keys"]:  # transformers would leave them random
        name = sorted([*lacking, *(str(key) for key in report["mismatched_keys"])])[0]
        raise NnmissError(f"text_encoder={encoder}: its weights lack parts of CLIP's text model and projection, such as "
                          f"{name}: give a whole CLIP model")
    return tokenizer, model.float().eval()


def _hub_answers() -> bool:
    """Whether the hub, or the proxy in front of it, takes a connection within a few seconds."""
    from huggingface_hub import constants  # comes with transformers

    address = urlsplit(urllib.request.getproxies().get("https") or constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname, address.port or 443), HUB_SECONDS).close()
    except OSError:
        return False
    return True


@contextmanager
def quiet_transformers() -> Iterator[ModuleType]:
    """Yields the transformers package with its messages and progress bars off. Raises EncoderUnavailable without it."""
    transformers = _import_transformers()
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield transformers
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _import_transformers() -> ModuleType:
    """The transformers package, an extra and slow to import, with CLIP's text model. Raises EncoderUnavailable without it.

    It imports torchvision where that is installed. One that does not fit torch would make it fail, though text needs no
    images: such a one is hidden meanwhile.
    """
    try:
        import torchvision  # noqa: F401
        broken = False
    except Exception as error:
        broken = not isinstance(error, ImportError)  # its operators are of another torch
    if broken:
        sys.modules["torchvision"] = None
    try:
        import transformers
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer  # noqa: F401 (loaded when asked for)
    except (ImportError, RuntimeError, AttributeError) as error:  # the last two: a transformers of another torch
        raise EncoderUnavailable(f"the package transformers cannot be used ({error})") from None
    finally:
        if broken:
            sys.modules.pop("torchvision", None)
    return transformers
