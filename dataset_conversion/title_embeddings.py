"""Embeddings of texts by a language model that lies in a folder, with the package transformers, an extra."""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from tqdm import tqdm

from nnmiss.errors import NnmissError
from nnmiss.networks.text_encoder import EncoderUnavailable, quiet_transformers

AT_ONCE = 64  # texts encoded together
LONGEST = 128  # tokens; a title is shorter


@torch.inference_mode()
def embed_texts(texts: Sequence[str], folder: str | os.PathLike, disable_progress_bar: bool = False) -> np.ndarray:
    """(N, D) float32: the mean of the last hidden states over a text's tokens, without padding.

    Args:
        texts: N of them.
        folder: a model as transformers saves it, of BERT's kind or the text half of CLIP: config.json, model.safetensors
            and the tokenizer's files. Nothing is downloaded, pickled weights are not read, code in the folder is not run.
        disable_progress_bar: prints none.

    Raises NnmissError when transformers is not installed or the folder holds no such model.
    """
    try:
        with quiet_transformers() as transformers:
            tokenizer, model = _load(Path(folder), transformers)
    except EncoderUnavailable as error:
        raise NnmissError(f'a text encoder needs the package transformers ({error}): pip install "nnmiss[clip]"') from None
    longest = min(LONGEST, getattr(model.config, "max_position_embeddings", LONGEST))
    parts = []
    for start in tqdm(range(0, len(texts), AT_ONCE), desc="encoding texts", disable=disable_progress_bar):
        tokens = tokenizer(list(texts[start: start + AT_ONCE]), padding=True, truncation=True, max_length=longest,
                           return_tensors="pt")
        ids, mask = tokens["input_ids"], tokens["attention_mask"]  # (B, T)
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, T, D)
        share = mask[..., None].to(hidden)
        parts.append((hidden * share).sum(1) / share.sum(1).clamp_min(1))
    embeddings = torch.cat(parts).float().numpy()
    if not np.isfinite(embeddings).all():
        raise NnmissError(f"the model in {folder} gives embeddings that are not finite: its weights are broken")
    return embeddings


def _load(folder: Path, transformers: ModuleType) -> tuple:
    """(tokenizer, model in evaluation mode)."""
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise NnmissError(f"{folder} holds no text encoder: it needs config.json, model.safetensors and the tokenizer's "
                          "files, as transformers' save_pretrained writes them")
    try:
        kind = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model_class = transformers.CLIPTextModel if kind.startswith("clip") else transformers.AutoModel
        model, report = model_class.from_pretrained(folder, local_files_only=True, use_safetensors=True,
                                                    output_loading_info=True)
    except Exception as error:  # OSError, safetensors', JSON's and its own: they differ between versions
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise NnmissError(f"the text encoder in {folder} cannot be loaded ({reason})") from None
    lacking = sorted(set(report["missing_keys"]) & {name for name, _ in model.named_parameters() if "pooler" not in name})
    if lacking or report["mismatched_keys"]:  # transformers would leave them random
        raise NnmissError(f"the text encoder in {folder} lacks weights or has some of another shape: "
                          f"{', '.join([*lacking, *map(str, report['mismatched_keys'])][:3])}")
    return tokenizer, model.eval()
