"""An encoder that knows which modality it sees: normalisation, or first stages, of each modality's own."""
from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from nnmiss.errors import NnmissError, nearest_names
from nnmiss.networks.modality_norm import ModalityNorm, ShownModality

MODALITY_SPECIFIC = ("none", "norm", "embedding")
NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)  # the ones that plans may have (plan_checks)


class SeparateStage(nn.Module):
    """A stage of the encoder that exists once per modality.

    The copies start with the same weights: as the shared encoder starts, so that features of different modalities mean the
    same to the shared stages, to Eq. 2 and to distillation. What the modalities look like soon makes them differ.
    """

    def __init__(self, stage: nn.Module, num_modalities: int, shown: ShownModality):
        super().__init__()
        self.copies = nn.ModuleList([stage, *(deepcopy(stage) for _ in range(num_modalities - 1))])
        self.shown = shown

    def forward(self, x: Tensor) -> Tensor:
        """(P, C, *spatial) -> the stage's (P, C', *spatial')."""
        items = self.shown.items()
        images, done = x.split(1), {}  # pieces of one image, whose gradients are put together without zeros in between
        for m, group in items.items():
            together = torch.cat([images[item] for item in group]) if len(group) > 1 else images[group[0]]
            done.update(zip(group, self.copies[m](together).split(1)))
        idle = [p for m, copy in enumerate(self.copies) if m not in items for p in copy.parameters()]
        if self.training and torch.is_grad_enabled() and idle:
            # as maps of absent modalities in a fusion, they get a gradient of zeros, for which distributed training waits
            done[0] = done[0] + 0 * sum(p.sum() for p in idle)
        return torch.cat([done[item] for item in range(len(x))])

    def compute_conv_feature_map_size(self, input_size) -> int:
        return self.copies[0].compute_conv_feature_map_size(input_size)


def specialise(encoder: nn.Module, num_modalities: int, modality_specific: str, separate_stages: int) -> ShownModality:
    """Gives parts of nnU-Net's encoder (plain or residual) parameters for each modality; before a device or DDP has it.

    Args:
        encoder: changed in place.
        num_modalities: M.
        modality_specific: "none"; "norm": every normalisation has a scale and a shift for each modality; "embedding": the
            first normalisation of each stage, and of a stem, adds a learned vector for each modality. (There, because
            behind a stage the next normalisation would take a constant away again.)
        separate_stages: so many first stages, with the stem, exist once per modality.

    Returns:
        What must be told the modalities of the images around every pass of the encoder.

    Raises:
        NnmissError: unknown choice, more stages than the encoder has, or nothing that could depend on the modality.
    """
    if modality_specific not in MODALITY_SPECIFIC:
        raise NnmissError(f"modality_specific {modality_specific!r} is unknown. "
                          f"{nearest_names(modality_specific, MODALITY_SPECIFIC)}")
    if not 0 <= separate_stages <= len(encoder.stages):
        raise NnmissError(f"separate_stages={separate_stages}: the plan's encoder has {len(encoder.stages)} stages")
    shown = ShownModality()
    stem = getattr(encoder, "stem", None)
    if separate_stages and stem is not None:
        encoder.stem = SeparateStage(stem, num_modalities, shown)
    for s in range(separate_stages):
        stage = encoder.stages[s]
        holder, name = (stage, len(stage) - 1) if isinstance(stage, nn.Sequential) else (encoder.stages, s)
        holder[name] = SeparateStage(holder[name], num_modalities, shown)  # behind a pooling, if there is one
    shared = [part for part in (None if separate_stages else stem, *encoder.stages[separate_stages:]) if part is not None]
    if modality_specific != "none" and not shared:
        raise NnmissError(f"modality_specific={modality_specific} is for what modalities share, and separate_stages="
                          f"{separate_stages} leaves nothing: leave one of them out")
    if modality_specific != "none":
        replaced = [specialise_norms(part, num_modalities, shown, modality_specific == "embedding") for part in shared]
        if not any(replaced):
            raise NnmissError(f"modality_specific={modality_specific} needs instance normalisation with scale and shift, "
                              "which this plan's network does not have: leave it out, or set affine in norm_op_kwargs")
    return shown


def specialise_norms(part: nn.Module, num_modalities: int, shown: ShownModality, first_only: bool) -> int:
    """Replaces the part's instance normalisations, or adds a shift to the first; how many."""
    norms = [m for m in part.modules() if isinstance(m, NORMS) and m.affine][: 1 if first_only else None]
    new = {norm: ModalityNorm(norm, num_modalities, shown, shift_only=first_only) for norm in norms}
    for module in list(part.modules()):  # nnU-Net's blocks hold a layer twice: under a name, and in a sequence
        for name, child in list(module._modules.items()):
            if child in new:
                setattr(module, name, new[child])
    return len(new)
