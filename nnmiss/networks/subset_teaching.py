"""A network in training with what prediction does not need: a second decoding of the full set, projectors of features."""
from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nnmiss.networks.base import MissingModalityNetwork, item_index

PLACES = ("bottleneck", "every_stage", "decoder", "logits")


@dataclass
class Pass:
    """What a training step needs of its one call of the network.

    Attributes:
        logits: under the subset, as `decode` gives them.
        index: (B, M) long, which of `features` each sample's shown modality is, -1 where it is not shown.
        features: of each scale that is distilled (P, C, *spatial): the encoder's, packed, or the decoder's, one per sample.
        students: `features`, or their projections.
        taught: numbers of the n samples whose subset is not yet all that they have; only these are decoded twice.
        full_logits: their logits under all that they have, as `decode` gives them; None without a second decoding.
        full_features: of each scale of the decoder (n, C, *spatial), where these are distilled.
        nothing: 0 with a gradient of 0 into the projectors, as distributed training waits for one.
    """

    logits: Tensor | list[Tensor]
    index: Tensor
    features: list[Tensor]
    students: list[Tensor]
    taught: list[int] = field(default_factory=list)
    full_logits: Tensor | list[Tensor] | None = None
    full_features: list[Tensor] = field(default_factory=list)
    nothing: Tensor | float = 0.0


class SubsetTeaching(nn.Module):
    """A network, its projectors, and a forward pass that decodes a subset and all that a case has from one encoding.

    Args:
        network: the network of inference, with nnU-Net's decoder.
        places: whose features are distilled: one of PLACES.
        projector: a 1x1x1 convolution C -> C per scale that starts as identity, on the student's side. It lets features
            keep what they do not share (FitNets, Romero et al. 2015).
    """

    def __init__(self, network: MissingModalityNetwork, places: str, projector: bool):
        super().__init__()
        self.network, self.places = network, places
        self.projectors = nn.ModuleList()
        if projector:
            kind = nn.Conv3d if any(isinstance(module, nn.Conv3d) for module in network.modules()) else nn.Conv2d
            self.projectors.extend(identity(kind, channels) for channels in self.channels())

    def channels(self) -> list[int]:
        """Of every scale that is distilled."""
        encoded = list(self.network.encoder.output_channels)
        return {"bottleneck": encoded[-1:], "every_stage": encoded, "decoder": encoded[-2::-1], "logits": []}[self.places]

    def forward(self, x: Tensor, present: Tensor, available: Tensor | None = None, full_task: bool = False,
                teacher: MissingModalityNetwork | None = None) -> Pass:
        """One pass under `present` and, where `available` has more, one under that.

        Args:
            x: (B, M, *spatial) float; absent modalities may hold anything.
            present: (B, M) bool with no empty row.
            available: (B, M) bool that contains `present`; None: no second decoding.
            full_task: the second decoding gets a gradient; else what it alone needs is encoded without.
            teacher: decodes the full set instead of the network, from its own encoding; only without `full_task`.
        """
        taught = [] if available is None else (available != present).any(1).nonzero()[:, 0].tolist()
        extra = torch.zeros_like(present)  # what only the second decoding needs
        if taught and (full_task or teacher is None):
            extra[taught] = (available & ~present)[taught]
        encoded = present | extra if full_task else present  # with a gradient
        features, index = encode(self.network, x, encoded), item_index(encoded)
        shown = torch.where(present, index, -1)
        logits, decoded = self._decoded(self.network, features, shown)
        result = Pass(logits, shown, self._distilled(features, decoded), [], taught)
        result.students = result.features
        if taught:  # after the pass with a gradient: autocast keeps what it casts, and without one that has no gradient
            with torch.set_grad_enabled(full_task and torch.is_grad_enabled()):
                if not full_task and teacher is not None:
                    network, shown = teacher, available[taught]
                    features, index = encode(teacher, x[taught], shown), item_index(shown)
                else:
                    network = self.network
                    if not full_task and extra.any():
                        features = [torch.cat(scale) for scale in zip(features, encode(network, x, extra))]
                        index = torch.where(extra, item_index(extra) + int(present.sum()), index)
                    shown = available[taught]
                    index = index[taught]
                result.full_logits, decoded = self._decoded(network, features, torch.where(shown, index, -1))
            result.full_features = decoded
        if len(self.projectors):
            if taught or self.places != "decoder":
                result.students = [project(scale) for project, scale in zip(self.projectors, result.features)]
            result.nothing = 0 * sum(parameter.sum() for parameter in self.projectors.parameters())
        return result

    def _decoded(self, network: MissingModalityNetwork, features: list[Tensor], index: Tensor):
        """(logits, features of the decoder's stages where they are distilled, else [])."""
        fused = network.fuse(features, index)
        if self.places != "decoder":
            return network.decode(fused), []
        with recorded(network.decoder.stages) as outputs:
            return network.decode(fused), outputs

    def _distilled(self, features: list[Tensor], decoded: list[Tensor]) -> list[Tensor]:
        return {"bottleneck": features[-1:], "every_stage": features, "decoder": decoded, "logits": []}[self.places]


def encode(network: MissingModalityNetwork, x: Tensor, shown: Tensor) -> list[Tensor]:
    """Packed features of what is shown (B, M) of the images x (B, M, *spatial), in the order of `item_index`."""
    return network.encode(x[shown][:, None], shown.nonzero()[:, 1])


@contextmanager
def recorded(stages: nn.ModuleList):
    """While open, what the stages put out is appended to the list that it gives, in the order of their calls."""
    outputs: list[Tensor] = []
    handles = [stage.register_forward_hook(lambda module, given, out: outputs.append(out)) for stage in stages]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def identity(kind: type[nn.Module], channels: int) -> nn.Module:
    """A 1x1x1 convolution that changes nothing yet, and draws no random numbers."""
    convolution = nn.utils.skip_init(kind, channels, channels, 1)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight)
        convolution.bias.zero_()
    return convolution
