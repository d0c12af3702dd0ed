"""A whole classifier per modality, mixed by a gating network: SimMLM's DMoME."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from nnmiss.classification.sample_set import ModalityInput
from nnmiss.errors import NnmissError, nearest_names
from nnmiss.networks.base import item_index
from nnmiss.networks.classifier import MissingModalityClassifier, mix_probabilities, packed, unpack
from nnmiss.networks.encoders import build_encoder, build_encoders
from nnmiss.networks.encoders.base import Encoder
from nnmiss.networks.gating import log_weights
from nnmiss.networks.single_expert import Expert, expert_of

LEVELS = ("logits", "probabilities", "features")
GATINGS = ("dynamic", "static")
GATE_FEATURES = 128  # of each modality (SimMLM, supplement, Table A1)


class ExpertMixtureClassifier(MissingModalityClassifier):
    """DMoME for modalities of unlike kinds (SimMLM, Fig. A1, Table A1).

    Encoding runs a row through its modality's expert and its modality's part of the gate; fusing asks the gate, softmaxes
    over what is shown and mixes. A modality that is not shown contributes zeros to the gate's input. The gate has one
    weight per modality (Table A1: 2 x 1) and its last layer starts at zero: training starts from the plain average.

    Args:
        experts: one per modality.
        gates: one small encoder per modality, all with as many features; None with static gating.
        num_outputs: outputs.
        task: one of nnmiss.classification.tasks.TASKS, which says what probabilities are.
        level: what is mixed: "logits" (the paper's choice), "probabilities", or "features" (Table A3): what stands
            before each expert's last layer, followed by one last layer for all; experts of unlike widths get a linear
            map to the widest.
        gating: "dynamic", or "static": the plain average (Table A2).

    Raises:
        NnmissError: unknown level or gating.
    """

    def __init__(self, experts: list[Expert], gates: list[Encoder] | None, num_outputs: int, task: str,
                 level: str = "logits", gating: str = "dynamic"):
        super().__init__(len(experts), num_outputs)
        for name, value, known in (("level", level, LEVELS), ("gating", gating, GATINGS)):
            if value not in known:
                raise NnmissError(f"{name} {value!r} is unknown. {nearest_names(str(value), known)}")
        self.experts, self.task, self.level = nn.ModuleList(experts), task, level
        self.mixed = num_outputs  # numbers per item that are mixed
        if level == "features":
            self.mixed = max(expert.width for expert in experts)
            self.maps = nn.ModuleList(nn.Identity() if expert.width == self.mixed else nn.Linear(expert.width, self.mixed)
                                      for expert in experts)
            self.output = nn.Linear(self.mixed, num_outputs)
            for expert in experts:
                expert.output = nn.Identity()
        self.gates = self.gate = None
        if gating == "dynamic":
            self.gates = nn.ModuleList(gates)
            self.gate = nn.Linear(sum(gate.features for gate in gates), len(experts))
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)

    @torch.no_grad()
    def load_expert(self, modality: int, weights: dict[str, Tensor]) -> None:
        """Takes the weights of an ExpertClassifier; at level "features" the last layer becomes the mean of the experts'.

        Experts that need a map to the common width keep theirs and the last layer as these were drawn.
        """
        weights = {name.removeprefix("expert."): value for name, value in weights.items()}
        if self.level == "features":
            alike = all(isinstance(each, nn.Identity) for each in self.maps)
            for name, parameter in self.output.named_parameters():
                own = weights.pop(f"output.{name}").to(parameter)
                if alike:
                    parameter.copy_(own if modality == 0 else parameter + (own - parameter) / (modality + 1))
        self.experts[modality].load_state_dict(weights)

    def encode_modality(self, modality, shown):
        """(n, mixed + gate width): what is mixed, then the gate's features."""
        mixed = self.experts[modality](shown.values, shown.lengths)
        if self.level == "features":
            mixed = self.maps[modality](mixed)
        return mixed if self.gate is None else torch.cat([mixed, self._gate_features(modality, shown)], 1)

    def _gate_features(self, modality: int, shown: ModalityInput) -> Tensor:
        return self.gates[modality](shown.values, shown.lengths)

    def fuse(self, features, index, importance=None):
        if importance is not None:
            raise NotImplementedError("experts are weighted by their gate, not by importance")
        mixed, gate_features = features[:, : self.mixed], features[:, self.mixed :]
        log_w = self._log_weights(gate_features, index)  # (B, M)
        table = unpack(mixed, index)  # (B, M, mixed)
        if self.level == "probabilities":
            return mix_probabilities(table, log_w, self.task)
        return (log_w.exp()[..., None].to(table.dtype) * table).sum(1)

    def decode(self, fused):
        return self.output(fused) if self.level == "features" else fused

    def _log_weights(self, gate_features: Tensor | None, index: Tensor) -> Tensor:
        """(B, M) logarithms of the weights, -inf where not shown, from packed features of the gate (P, gate width)."""
        scores = torch.zeros(index.shape, device=index.device)
        if self.gate is not None:
            scores = self.gate(unpack(gate_features, index).flatten(1)).float()  # of (B, M * width)
        return log_weights(scores[..., None], index >= 0)[..., 0]

    def gate_weights(self, x: list[ModalityInput], present: Tensor) -> Tensor:
        """What the mixture weighs the experts with, without running them.

        Returns:
            (B, M) float32: 0 where not shown, 1 in sum over modalities.
        """
        features = None if self.gate is None else packed(x, present, self._gate_features)
        return self._log_weights(features, item_index(present)).exp()


def gate_spec(shape: tuple[int | None, ...]) -> dict:
    """The small encoder that a gate reads samples of this shape with (SimMLM, supplement, Table A1, and its like)."""
    if None in shape:
        return {"name": "lstm", "hidden": GATE_FEATURES, "layers": 1, "dropout": 0.0}
    if len(shape) == 3:
        return {"name": "cnn2d", "channels": [32, GATE_FEATURES]}
    if len(shape) == 4:
        return {"name": "cnn3d", "channels": [16, 32, GATE_FEATURES]}
    return {"name": "mlp", "hidden": [GATE_FEATURES]}


def build_experts(configuration: dict, shapes: dict, num_outputs: int, task: str, encoders: str = "", level: str = "logits",
                  gating: str = "dynamic") -> ExpertMixtureClassifier:
    """The plan's encoders as experts, and a gate by the shapes of the samples.

    Args:
        configuration, shapes, num_outputs: see `build_expert`.
        task, level, gating: see ExpertMixtureClassifier.
        encoders: other encoders than the plan's, see nnmiss.networks.encoders.parse_encoders.
    """
    names = list(configuration["modalities"])
    experts = [expert_of(configuration, m, encoder, num_outputs)
               for m, encoder in zip(names, build_encoders(configuration, shapes, encoders))]
    gates = [build_encoder(gate_spec(shapes[m]), shapes[m]) for m in names] if gating == "dynamic" else None
    return ExpertMixtureClassifier(experts, gates, num_outputs, task, level, gating)
