"""One modality's whole classifier, and a network of M modalities that reads that one alone."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from nnmiss.networks.base import item_index
from nnmiss.networks.classifier import MissingModalityClassifier
from nnmiss.networks.encoders import build_encoder_of, parse_encoders
from nnmiss.networks.encoders.base import Encoder, fully_connected


class Expert(nn.Module):
    """One modality's classifier: its encoder and the fully connected layers it is published with.

    Args:
        encoder: of the modality.
        num_outputs: outputs.
        hidden, dropout: of the layers between features and outputs; None: the encoder's own (SMIL: 160-32 after LeNet,
            320-160-32 after the sound network; none after others).
    """

    def __init__(self, encoder: Encoder, num_outputs: int, hidden: list[int] | None = None,
                 dropout: float | list[float] | None = None):
        super().__init__()
        hidden = encoder.head_hidden if hidden is None else hidden
        published = encoder.head_dropout if len(hidden) == len(encoder.head_hidden) else 0.0
        self.encoder = encoder
        self.head = fully_connected([encoder.features, *hidden], published if dropout is None else dropout)
        self.width = [encoder.features, *hidden][-1]
        self.output = nn.Linear(self.width, num_outputs)

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (P, outputs) of values (P, *shape)."""
        return self.output(self.head(self.encoder(values, lengths)))


class ExpertClassifier(MissingModalityClassifier):
    """One expert as a network of M modalities, of which it reads one: a single-modality model, or a stage of SimMLM.

    In a batch, rows that lack its modality get logits of 0: a constant, without gradient. `forward_subsets` gives them
    NaN, because there is nothing to predict from.

    Args:
        expert: the classifier.
        num_modalities: M.
        modality: the one it reads.
    """

    def __init__(self, expert: Expert, num_modalities: int, modality: int):
        super().__init__(num_modalities, expert.output.out_features)
        self.expert, self.modality = expert, modality

    def usable(self, shown):
        return shown[..., self.modality]

    def encode(self, x, present):
        """Features (P, width) before the last layer; zeros for items of other modalities."""
        rows, index = present[:, self.modality].nonzero()[:, 0], item_index(present)
        features = x[self.modality].values.new_zeros(int(present.sum()), self.expert.width)
        if not len(rows):
            return features
        seen = x[self.modality][rows]
        encoded = self.expert.head(self.expert.encoder(seen.values, seen.lengths))
        return features.to(encoded.dtype).index_copy(0, index[rows, self.modality], encoded)

    def fuse(self, features, index, importance=None):
        if importance is not None:
            raise NotImplementedError("a single expert has no features to weigh")
        own = index[:, self.modality]  # (B,)
        logits = self.expert.output(features[own.clamp_min(0)])
        return torch.where((own >= 0)[:, None], logits, 0)

    def decode(self, fused):
        return fused


def build_expert(configuration: dict, shapes: dict, num_outputs: int, modality: str,
                 encoders: str = "") -> ExpertClassifier:
    """The expert of one modality of the plan, alone.

    Args:
        configuration: the plan's; a modality's "head": {"hidden", "dropout"} replaces the encoder's published layers.
        shapes: modality -> shape of one sample.
        num_outputs: see nnmiss.classification.tasks.num_outputs.
        modality: name of the one it reads.
        encoders: other encoders than the plan's, see nnmiss.networks.encoders.parse_encoders; those of other modalities
            are read and not used.
    """
    names = list(configuration["modalities"])
    encoder = build_encoder_of(configuration, shapes, modality, parse_encoders(encoders, names).get(modality))
    return ExpertClassifier(expert_of(configuration, modality, encoder, num_outputs), len(names), names.index(modality))


def expert_of(configuration: dict, modality: str, encoder: Encoder, num_outputs: int) -> Expert:
    """This encoder with the fully connected layers that the plan gives its modality, or its published ones."""
    head = configuration["modalities"][modality].get("head", {})
    return Expert(encoder, num_outputs, head.get("hidden"), head.get("dropout"))
