"""What every network family offers: encode one modality, fuse a subset, decode; so that subsets can share work."""
from __future__ import annotations

import torch
from torch import Tensor, nn


def item_index(present: Tensor) -> Tensor:
    """Where each (sample, modality) stands among the packed items: (B, M) long, -1 where the modality is not shown.

    Packed items are ordered by sample, then by modality: the order of `x[present]`.
    """
    counted = present.flatten().long().cumsum(0).view_as(present) - 1  # (B, M)
    return torch.where(present, counted, -1)


class MissingModalityNetwork(nn.Module):
    """A segmentation network that is shown any non-empty subset of M modalities.

    Sub-classes write `encode`, `fuse` and `decode` and have an attribute `decoder` whose `deep_supervision` nnU-Net
    switches. Absent modalities are never read, so their voxels may hold anything, NaN included.
    """

    def __init__(self, num_modalities: int):
        super().__init__()
        self.num_modalities = num_modalities

    @property
    def finest_width(self) -> int:
        """Channels of the finest features, from which memory is estimated."""
        return self.encoder.output_channels[0]

    def encode(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        """Features of P single-modality images, finest first.

        Args:
            images: (P, 1, *spatial) float.
            modality: (P,) long, the modality of each image.

        Returns:
            One (P, C_l, *spatial_l) tensor per scale.
        """
        raise NotImplementedError

    def fuse(self, features: list[Tensor], index: Tensor, importance: Tensor | None = None) -> list[Tensor]:
        """Combines the features of each sample's present modalities.

        Args:
            features: as `encode` returns them.
            index: (B, M) long; which item is sample b's modality m, -1 where it is not shown. Samples may share items.
            importance: (M,) float or None; factor of each modality's features (MetaKD Eq. 4's w_i).

        Returns:
            One (B, C_l, *spatial_l) tensor per scale.
        """
        raise NotImplementedError

    def decode(self, fused: list[Tensor]) -> Tensor | list[Tensor]:
        """Logits (B, K, *spatial), or with deep supervision a list of them, finest first."""
        raise NotImplementedError

    def forward(self, x: Tensor, present: Tensor | None = None, importance: Tensor | None = None,
                return_features: bool = False, fewer: Tensor | None = None):
        """Logits of a batch in which every sample may be shown another subset.

        One call holds everything that is trained, so that DistributedDataParallel sees every gradient.

        Args:
            x: (B, M, *spatial) float.
            present: (B, M) bool with no empty row; None shows everything, as stock nnU-Net does.
            importance: (M,) float or None, see `fuse`.
            return_features: also return the packed features of `encode`.
            fewer: (B, M) bool, non-empty subsets of `present`: also return the logits under these, from the same
                encoding.

        Returns:
            The logits of `decode`; with `return_features` or `fewer` a tuple (logits, [logits under `fewer`], [features]).
        """
        if x.shape[1] != self.num_modalities:
            raise ValueError(f"the network was built for {self.num_modalities} modalities, got an image with {x.shape[1]}: "
                             "predict incomplete cases with nnmiss_predict, not with nnU-Net's own command")
        if present is None:
            present = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        modality = present.nonzero()[:, 1]  # (P,)
        features = self.encode(x[present][:, None], modality)  # (P, C_l, ...)
        index = item_index(present)  # (B, M)
        logits = self.decode(self.fuse(features, index, importance))  # (B, K, ...)
        more = []
        if fewer is not None:
            more.append(self.decode(self.fuse(features, torch.where(fewer, index, -1), importance)))  # (B, K, ...)
        more += [features] if return_features else []
        return (logits, *more) if more else logits

    def forward_subsets(self, x: Tensor, presents: Tensor, batch: int = 4) -> Tensor:
        """Logits of the same images under several subsets; each modality is encoded once.

        Args:
            x: (T, M, *spatial) float, T images (tiles or their mirrored versions).
            presents: (S, M) bool with no empty row.
            batch: how many images are encoded, or (image, subset) pairs decoded, at once; bounds the memory
                and does not change results.

        Returns:
            (T, S, K, *spatial) float32.
        """
        needed = presents.any(0)  # (M,)
        shown = needed.expand(len(x), -1)  # (T, M)
        images, modality = x[shown][:, None], shown.nonzero()[:, 1]  # (T*A, 1, *spatial), (T*A,)
        parts = [self.encode(*part) for part in zip(images.split(batch), modality.split(batch))]
        features = [torch.cat(scale) for scale in zip(*parts)]  # (T*A, C_l, ...)
        index = item_index(shown)[:, None].expand(-1, len(presents), -1)  # (T, S, M)
        index = torch.where(presents, index, -1).flatten(0, 1)  # (T*S, M)
        logits = self.decode_subsets(features, index, presents, batch)
        return logits.unflatten(0, (len(x), len(presents)))  # (T, S, K, ...)

    def decode_subsets(self, features: list[Tensor], index: Tensor, presents: Tensor, batch: int) -> Tensor:
        """Logits (T*S, K, *spatial) float32 of T images under the subsets `presents` (S, M).

        `index` (T*S, M) as in `fuse`, image by image; at most `batch` rows are decoded at once. Families that can share
        more than the encoding between subsets do it here.
        """
        return torch.cat([self.decode(self.fuse(features, part)).float() for part in index.split(batch)])
