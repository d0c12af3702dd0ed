"""A training step of a plan on the meta device: what it would compute, move and hold, without computing anything."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor, nn

from nnmiss.losses.pairwise_distillation import pairwise_distillation
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.base import MissingModalityNetwork
from nnmiss.networks.shared_encoder_unet import SharedEncoderUNet
from nnmiss.planners.step_meter import StepMeter, held

MOST_SAMPLES = 16  # of a batch whose step is gone through whole


@dataclass(frozen=True, eq=False)
class PlannedSteps:
    """Steps of one configuration in float32, of stock nnU-Net and of the packed shared-encoder network.

    Args:
        configuration: architecture and patch size.
        num_modalities: M.
        num_outputs: output channels of the network.
        regions: whether labels are regions (sigmoid) instead of classes (softmax).
        variant: settings of SharedEncoderUNet that are not its defaults, such as fusion.
    """

    configuration: ConfigurationManager = field(repr=False)
    num_modalities: int
    num_outputs: int
    regions: bool = False
    variant: dict[str, object] = field(default_factory=dict)

    @cache  # noqa: B019 (both live as long as one plan is made)
    def stock_forward(self) -> StepMeter:
        """Operations and bytes moved of stock's forward pass of one sample."""
        return self._metered_forward(self._stock(), lambda network: network(self._images(1)))

    @cache  # noqa: B019
    def packed_forward(self, width: float, shown: int) -> StepMeter:
        """Operations and bytes moved of the packed network's forward pass of one sample with `shown` modalities."""
        return self._metered_forward(self._packed(width), lambda network: self._packed_pass(network, shown, 1))

    def stock_peak(self, samples: int) -> int:
        """Peak of the bytes held in stock's training step of `samples` samples."""
        return self._of_many(self._stock_peak, samples)

    def packed_peak(self, width: float, samples: int, checkpointing: bool = False, passes: int = 1, kept: int = 0,
                    shown: int | None = None) -> int:
        """Peak of the bytes held in the packed network's step of `passes` times `samples` samples.

        Args:
            kept: with checkpointing, images of a pass that are not recomputed.
            shown: modalities; None: all.
        """
        share = kept / samples
        return self._of_many(lambda n: self._packed_peak(width, n, checkpointing, passes, round(share * n), shown), samples)

    @staticmethod
    def _of_many(peak: Callable[[int], int], samples: int) -> int:
        """peak(samples); of many samples, as of small 2D images, from two smaller numbers: it grows by so much a sample."""
        if samples <= MOST_SAMPLES:
            return peak(samples)
        half, most = peak(MOST_SAMPLES // 2), peak(MOST_SAMPLES)
        return round(most + (samples - MOST_SAMPLES) * (most - half) / (MOST_SAMPLES - MOST_SAMPLES // 2))

    @cache  # noqa: B019
    def _stock_peak(self, samples: int) -> int:
        network, x = self._stock(), self._images(samples)
        return self._peak(network, x, lambda: self._loss(network(x)), passes=1)

    @cache  # noqa: B019
    def _packed_peak(self, width: float, samples: int, checkpointing: bool, passes: int, kept: int,
                     shown: int | None) -> int:
        network = self._packed(width)
        network.activation_checkpointing, network.kept_images = checkpointing, kept
        network.zero_grad()
        ratios = torch.ones(self.num_modalities, self.num_modalities)

        def loss() -> Tensor:
            logits, features, index = self._packed_pass(network, shown or self.num_modalities, samples)
            distillation = pairwise_distillation(features[-1], index, ratios)  # first, as in training
            return self._loss(logits) + distillation

        return self._peak(network, self._images(samples * passes), loss, passes)

    def _stock(self) -> nn.Module:
        with torch.device("meta"):
            return build_unet(self.configuration, self.num_modalities, self.num_outputs, True)

    @cache  # noqa: B019
    def _packed(self, width: float) -> MissingModalityNetwork:
        with torch.device("meta"):
            unet = build_unet(self.configuration, 1, self.num_outputs, True, width)
            return SharedEncoderUNet(unet, self.num_modalities, **self.variant)

    def _images(self, samples: int) -> Tensor:
        return torch.empty(samples, self.num_modalities, *self.configuration.patch_size, device="meta")

    def _packed_pass(self, network: MissingModalityNetwork, shown: int,
                     samples: int) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """What the network's forward does with `shown` modalities; its own looks at values, which meta tensors lack."""
        index = torch.full((samples, self.num_modalities), -1)
        index[:, :shown] = torch.arange(samples * shown).view(samples, shown)
        images = self._images(samples)[:, :shown].clone().flatten(0, 1)[:, None]  # (samples * shown, 1, ...)
        features = network.encode(images, torch.arange(shown).repeat(samples))
        return network.decode(network.fuse(features, index)), features, index

    @staticmethod
    def _metered_forward(network: nn.Module, run: Callable[[nn.Module], object]) -> StepMeter:
        with torch.no_grad(), StepMeter() as meter:
            run(network)
        return meter

    @staticmethod
    def _peak(network: nn.Module, batch: Tensor, loss: Callable[[], Tensor], passes: int) -> int:
        parameters = held(network.parameters())
        with StepMeter() as meter:
            for _ in range(min(passes, 2)):  # later passes find the gradients that the second finds
                loss().backward()
        # weights and momentum all the time; while the optimiser steps gradients and a temporary of their size
        return 2 * parameters + held([batch]) + max(meter.peak, 2 * parameters)

    def _loss(self, logits: list[Tensor]) -> Tensor:
        """nnU-Net's loss with deep supervision, whose targets are made here."""
        used = max(1, len(logits) - 1)  # nnU-Net ignores the coarsest
        weights = [1 / 2**i if i < used else 0 for i in range(len(logits))]
        dice = {"batch_dice": False, "smooth": 1e-5, "ddp": False}
        if self.regions:
            loss = DC_and_BCE_loss({}, {**dice, "do_bg": True}, dice_class=MemoryEfficientSoftDiceLoss)
            targets = [torch.empty_like(scale, dtype=torch.bool) for scale in logits]
        else:
            loss = DC_and_CE_loss({**dice, "do_bg": False}, {}, dice_class=MemoryEfficientSoftDiceLoss)
            targets = [torch.empty_like(scale[:, :1], dtype=torch.int16) for scale in logits]
        return DeepSupervisionWrapper(loss, [w / sum(weights) for w in weights])(logits, targets)
