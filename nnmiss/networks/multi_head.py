"""A fusion head, and one linear head per modality that serves when others are missing: MIND's and MedFuse's network."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from nnmiss.classification.sample_set import ModalityInput
from nnmiss.errors import NnmissError, nearest_names
from nnmiss.networks.base import item_index
from nnmiss.networks.classifier import MissingModalityClassifier, mix_probabilities, unpack
from nnmiss.networks.encoders import Lstm, build_encoders
from nnmiss.networks.encoders.base import Encoder

FUSIONS = ("concat", "medfuse")
PARTIAL = ("average", "fusion")
TOKEN = 256  # length of MedFuse's tokens where no modality is a series


class MultiHeadClassifier(MissingModalityClassifier):
    """MIND's student and its baselines.

    Which head answers: with all modalities present the fusion head; with one its own; with some of more than two the
    mean of the present heads' probabilities. Without heads (the one-headed baselines) always the fusion head.

    Fusion "concat" is one linear layer on the concatenated features; without heads, missing features are zeros. Fusion
    "medfuse" reads the present modalities as a sequence of tokens, series first, with an LSTM of twice the token's size
    and a linear layer. Tokens have the size of the last series' features, or 256 where there is no series; every other
    modality is projected to it. An LSTM knows no token by name, only by place, as in MedFuse.

    MedFuse counts one linear layer of 2 x 256 features more, which its LSTM fusion never uses; it is left out here.

    Args:
        encoders: one per modality.
        num_outputs: outputs of each head.
        fusion: one of FUSIONS.
        task: one of nnmiss.classification.tasks.TASKS, which says what probabilities are.
        dropout: of every modality's features, beside what an encoder itself drops.
        with_heads: one head per modality beside the fusion head.
        partial: what is done with some of the modalities: "average", or with medfuse "fusion": shorter sequences, in
            training also of a single token.
        modalities: names, by which `heads` tells the heads apart; None: "0", "1" ...

    Raises:
        NnmissError: unknown fusion or partial, or partial "fusion" without medfuse.
    """

    def __init__(self, encoders: list[Encoder], num_outputs: int, fusion: str = "concat", task: str = "multiclass",
                 dropout: float = 0.0, with_heads: bool = True, partial: str = "average",
                 modalities: list[str] | None = None):
        super().__init__(len(encoders), num_outputs)
        for name, value, known in (("fusion", fusion, FUSIONS), ("partial", partial, PARTIAL)):
            if value not in known:
                raise NnmissError(f"{name} {value!r} is unknown. {nearest_names(str(value), known)}")
        if partial == "fusion" and fusion != "medfuse":
            raise NnmissError("partial=fusion needs a fusion that reads any number of modalities: set fusion=medfuse")
        self.task, self.fusion, self.partial = task, fusion, partial
        self.modalities = modalities or [str(m) for m in range(len(encoders))]
        self.encoders = nn.ModuleList(encoders)
        self.dropout = nn.Dropout(dropout)
        self.sizes = [encoder.features for encoder in encoders]
        self.heads_of = nn.ModuleList(nn.Linear(size, num_outputs) for size in self.sizes) if with_heads else None
        if fusion == "concat":
            self.fusion_head = nn.Linear(sum(self.sizes), num_outputs)
            return
        series = [m for m, encoder in enumerate(encoders) if isinstance(encoder, Lstm)]
        self.order = series + [m for m in range(len(encoders)) if m not in series]
        token = self.sizes[series[-1]] if series else TOKEN
        self.projections = nn.ModuleList(nn.Identity() if m in series and size == token else nn.Linear(size, token)
                                         for m, size in enumerate(self.sizes))
        self.fusion_lstm = nn.LSTM(token, 2 * token, batch_first=True)
        self.fusion_head = nn.Linear(2 * token, num_outputs)

    # ---- the three steps ----------------------------------------------------------------------------------------

    def encode_modality(self, modality, shown):
        """Features, padded with zeros to the widest modality's."""
        features = self.dropout(self.encoders[modality](shown.values, shown.lengths))
        return F.pad(features, (0, max(self.sizes) - features.shape[1]))

    def fuse(self, features, index, importance=None):
        """Logits (B, outputs) of the head, or the heads, that answer for each sample."""
        if importance is not None:
            raise NotImplementedError("heads are not weighted by importance")
        if self.heads_of is None:
            return self._fused(features, index)
        fused = self._answers_by_fusion(index >= 0)  # (B,)
        logits = features.new_zeros(len(index), self.num_outputs)
        for rows, answer in ((fused.nonzero()[:, 0], self._fused), ((~fused).nonzero()[:, 0], self._averaged)):
            if len(rows):
                answered = answer(features, index[rows])
                logits = logits.to(answered.dtype).index_copy(0, rows, answered)
        return logits

    def decode(self, fused):
        return fused

    # ---- training: every head by itself -------------------------------------------------------------------------

    def heads(self, x: list[ModalityInput], present: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """The logits of every head for the samples it applies to, from one encoding.

        Args:
            x: M inputs of B rows.
            present: (B, M) bool with no empty row.

        Returns:
            "fusion" and, with heads, each modality's name -> (logits (n, outputs), rows (n,) long). The fusion head applies
            to samples with all modalities; with partial "fusion", or without heads, to all. n may be 0.
        """
        features, index = self.encode(x, present), item_index(present)
        everything = torch.ones_like(present[:, 0])
        rows = (present.all(1) if self.partial == "average" and self.heads_of is not None else everything).nonzero()[:, 0]
        empty = features.new_zeros(0, self.num_outputs)
        out = {"fusion": (self._fused(features, index[rows]) if len(rows) else empty, rows)}
        for m, name in enumerate(self.modalities if self.heads_of is not None else []):
            rows = present[:, m].nonzero()[:, 0]
            out[name] = (self.heads_of[m](features[index[rows, m], : self.sizes[m]]) if len(rows) else empty, rows)
        return out

    # ---- heads --------------------------------------------------------------------------------------------------

    def _answers_by_fusion(self, shown: Tensor) -> Tensor:
        """(B,) bool: of subsets (B, M), which the fusion head answers."""
        return shown.all(1) | ((shown.sum(1) > 1) if self.partial == "fusion" else False)

    def _fused(self, features: Tensor, index: Tensor) -> Tensor:
        """The fusion head's logits (B, outputs)."""
        table = unpack(features, index)  # (B, M, widest)
        parts = [table[:, m, :size] for m, size in enumerate(self.sizes)]
        if self.fusion == "concat":
            return self.fusion_head(torch.cat(parts, 1))
        tokens = torch.stack([self.projections[m](parts[m]) for m in self.order], 1)  # (B, M, token), in reading order
        shown = (index >= 0)[:, self.order]
        first = (~shown).long().argsort(dim=1, stable=True)  # present tokens move to the front, their order kept
        tokens = tokens.gather(1, first[..., None].expand_as(tokens))
        packed = pack_padded_sequence(tokens, shown.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        _, (state, _) = self.fusion_lstm(packed)
        return self.fusion_head(state[-1])

    def _averaged(self, features: Tensor, index: Tensor) -> Tensor:
        """Logits (B, outputs) of the mean of the present heads' probabilities."""
        table, shown = unpack(features, index), index >= 0
        logits = torch.stack([head(table[:, m, : self.sizes[m]]) for m, head in enumerate(self.heads_of)], 1)  # (B, M, K)
        share = torch.where(shown, -shown.sum(1, keepdim=True).float().log(), -torch.inf)
        return mix_probabilities(logits, share, self.task)


def build_multi_head(configuration: dict, shapes: dict, num_outputs: int, task: str, encoders: str = "",
                     fusion: str = "concat", dropout: float = 0.0, with_heads: bool = True,
                     partial: str = "average") -> MultiHeadClassifier:
    """The plan's encoders with a fusion head and a head each.

    Args:
        configuration: the plan's, with "modalities".
        shapes: modality -> shape of one sample.
        num_outputs: see nnmiss.classification.tasks.num_outputs.
        encoders: other encoders than the plan's, see nnmiss.networks.encoders.parse_encoders.
        task, fusion, dropout, with_heads, partial: see MultiHeadClassifier.
    """
    return MultiHeadClassifier(build_encoders(configuration, shapes, encoders), num_outputs, fusion, task, dropout,
                               with_heads, partial, list(configuration["modalities"]))
