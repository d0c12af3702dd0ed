"""One U-Net per modality whose outputs a gating network mixes: SimMLM's DMoME, and one such expert alone."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnmiss.errors import NnmissError, nearest_names
from nnmiss.networks.base import MissingModalityNetwork, item_index
from nnmiss.networks.gating import Gate, log_weights

LEVELS = ("logits", "probabilities", "features")
GATINGS = ("dynamic", "static")


class ExpertNetwork(MissingModalityNetwork):
    """One modality's expert while it is trained alone; parameters have stock nnU-Net's names.

    Args:
        unet: a U-Net with one input channel.
        num_modalities: M.
        modality: the one it reads; where that is not shown it sees zeros.
    """

    def __init__(self, unet: nn.Module, num_modalities: int, modality: int):
        super().__init__(num_modalities)
        self.encoder, self.decoder, self.modality = unet.encoder, unet.decoder, modality

    def forward(self, x, present=None, importance=None, return_features=False, fewer=None):
        """Logits of a batch (B, M, *spatial), of which one modality is read."""
        image = x[:, self.modality, None]  # (B, 1, ...)
        if present is not None:
            image = torch.where(present[:, self.modality].view(-1, *[1] * (x.ndim - 1)), image, 0)
        return self.decoder(self.encoder(image))


class ModalityExperts(MissingModalityNetwork):
    """DMoME (SimMLM, Fig. A1): the mixture of the present modalities' experts, weighted per sample and task.

    Encoding runs each image through its modality's expert; fusing asks the gate and mixes; so any number of subsets of
    an image cost M experts. The gate sees all present images at once and softmaxes over the present modalities.

    At level "logits" (the paper's choice) and "probabilities" each output channel is a task with weights of its own. The
    mixed probabilities are returned as logits of them, because nnU-Net's losses and export apply sigmoid or softmax.
    At level "features" the finest decoder features are mixed with one weight per modality and a shared 1x1x1 head
    follows; the coarser outputs of deep supervision are mixed at their logits.

    Args:
        experts: M U-Nets with one input channel each.
        num_outputs: K, output channels.
        level: one of LEVELS (Table A3).
        gating: "dynamic", or "static": the plain average (Table A2).
        regions: whether outputs are sigmoid probabilities of regions or a softmax over labels; for "probabilities".
        activation_checkpointing: recompute each expert in the backward pass: one expert's activations exist at a time.

    Raises:
        NnmissError: unknown level or gating, or `regions` is not known where it is needed.
    """

    def __init__(self, experts: list[nn.Module], num_outputs: int, level: str = "logits", gating: str = "dynamic",
                 regions: bool | None = None, activation_checkpointing: bool = False):
        super().__init__(len(experts))
        for name, value, known in (("level", level, LEVELS), ("gating", gating, GATINGS)):
            if value not in known:
                raise NnmissError(f"{name} {value!r} is unknown. {nearest_names(value, known)}")
        if level == "probabilities" and regions is None:
            raise NnmissError("mixing probabilities needs to know whether the data set has regions, which nnmiss_train "
                              "writes into the plans: train with nnmiss_train")
        self.experts = nn.ModuleList(experts)
        self.num_outputs, self.level, self.regions = num_outputs, level, regions
        self.activation_checkpointing = activation_checkpointing
        convolution = experts[0].encoder.conv_op
        if level == "features":
            for expert in experts:
                expert.decoder.seg_layers[-1] = nn.Identity()
            self.head = convolution(experts[0].encoder.output_channels[0], num_outputs, 1)
        tasks = 1 if level == "features" else num_outputs
        self.gate = Gate(self.num_modalities, tasks, 3 if convolution is nn.Conv3d else 2) if gating == "dynamic" else None

    @property
    def finest_width(self) -> int:
        return self.experts[0].encoder.output_channels[0]

    @torch.no_grad()
    def load_expert(self, modality: int, weights: dict[str, Tensor]) -> None:
        """Takes the weights of an ExpertNetwork; with the level "features" the head becomes the mean of the experts'."""
        weights, last = dict(weights), f"decoder.seg_layers.{len(self.experts[0].decoder.seg_layers) - 1}."
        if self.level == "features":
            for name, parameter in self.head.named_parameters():
                own = weights.pop(last + name).to(parameter)
                parameter.copy_(own if modality == 0 else parameter + (own - parameter) / (modality + 1))
        self.experts[modality].load_state_dict(weights)

    # ---- the three steps ----------------------------------------------------------------------------------------

    def encode(self, images, modality):
        """Each image's expert: its outputs at every scale, finest first, and the image itself, which the gate needs."""
        groups: dict[int, list[int]] = {}
        for item, m in enumerate(modality.tolist()):
            groups.setdefault(m, []).append(item)
        parts = [self._run(self.experts[m], images[items]) for m, items in groups.items()]
        order = torch.tensor([item for items in groups.values() for item in items], device=images.device).argsort()
        outputs = [torch.cat(scale)[order] for scale in zip(*parts)]  # (P, K, ...) each
        idle = [expert for m, expert in enumerate(self.experts) if m not in groups]
        if self.training and torch.is_grad_enabled() and idle:
            # distributed training waits for a gradient of every parameter, also of experts that this rank did not need
            outputs[0] = outputs[0] + 0 * sum(p.sum() for expert in idle for p in expert.parameters())
        return [*outputs, images]

    def _run(self, expert: nn.Module, images: Tensor) -> list[Tensor]:
        """Outputs of one expert at every scale, finest first."""
        recompute = self.activation_checkpointing and torch.is_grad_enabled()
        out = checkpoint(expert, images, use_reentrant=False) if recompute else expert(images)
        return out if isinstance(out, list) else [out]

    def fuse(self, features, index, importance=None):
        if importance is not None:
            raise NotImplementedError("experts are weighted by their gate, not by importance")
        *scales, images = features
        log_w = self._log_weights(images, index)  # (B, M, tasks)
        rows = [[(m, item) for m, item in enumerate(row) if item >= 0] for row in index.tolist()]
        mix = mix_probabilities if self.level == "probabilities" else mix_linearly
        fused = [torch.stack([mix([scale[item] for _, item in row], log_w[b, [m for m, _ in row]], self.regions)
                              for b, row in enumerate(rows)]) for scale in scales]
        return fused  # (B, K, ...) each; at level "features" the first (B, C, ...)

    def decode(self, fused):
        fused = [self.head(fused[0]), *fused[1:]] if self.level == "features" else fused
        return fused if self.experts[0].decoder.deep_supervision else fused[0]

    def _log_weights(self, images: Tensor, index: Tensor) -> Tensor:
        """(B, M, tasks) of packed images (P, 1, *spatial); see `log_weights`."""
        shown = index >= 0  # (B, M)
        if self.gate is None:
            return log_weights(torch.zeros(*shown.shape, 1, device=shown.device), shown)
        where = shown.view(*shown.shape, *[1] * (images.ndim - 2))  # (B, M, 1, ...)
        return log_weights(self.gate(torch.where(where, images[index.clamp_min(0), 0], 0)), shown)

    def gate_weights(self, x: Tensor, present: Tensor) -> Tensor:
        """What the mixture weighs the experts with, without running them.

        Args:
            x: (B, M, *spatial) float; absent modalities hold anything.
            present: (B, M) bool with no empty row.

        Returns:
            (B, M, K) float32: 0 where not shown, 1 in sum over modalities.
        """
        weights = self._log_weights(x[present][:, None], item_index(present)).exp()
        return weights.expand(-1, -1, self.num_outputs)

    def compute_conv_feature_map_size(self, input_size) -> int:
        """nnU-Net's proxy of activation memory (voxels times channels) with all M modalities present."""
        return sum(e.encoder.compute_conv_feature_map_size(input_size) + e.decoder.compute_conv_feature_map_size(input_size)
                   for e in self.experts)


def mix_linearly(outputs: list[Tensor], log_w: Tensor, regions: bool | None = None) -> Tensor:
    """Weighted sum of one sample's k outputs (K, *spatial), with the logarithms (k, K or 1) of weights that sum to 1."""
    weights = log_w.exp().view(*log_w.shape, *[1] * (outputs[0].ndim - 1))  # (k, K or 1, 1, ...)
    total = weights[0] * outputs[0]
    for weight, output in zip(weights[1:], outputs[1:]):
        total = total + weight * output
    return total


def mix_probabilities(outputs: list[Tensor], log_w: Tensor, regions: bool) -> Tensor:
    """As `mix_linearly`, of sigmoid (`regions`) or softmax probabilities; returns logits (K, *spatial) of the mixture.

    All in logarithms, so that nothing is cut off. Labels have a weight per label, so their mixture need not sum to 1: the
    softmax that follows normalises it.
    """
    log_w = log_w.view(*log_w.shape, *[1] * (outputs[0].ndim - 1))  # (k, K or 1, 1, ...)
    logits = torch.stack(outputs).float()  # (k, K, ...)
    if not regions:
        return (log_w + logits.log_softmax(1)).logsumexp(0)
    log_p, log_not = nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
    return (log_w + log_p).logsumexp(0) - (log_w + log_not).logsumexp(0)
