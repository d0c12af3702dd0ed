"""Instance normalisation that knows which modality each image of a batch has."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F


class ShownModality:
    """Which modality each image has that goes through an encoder; all layers of one that ask for it share one of these."""

    def __init__(self):
        self.index: Tensor | None = None  # (P,) long, while a pass is under way
        self._items: dict[int, list[int]] | None = None

    @contextmanager
    def showing(self, index: Tensor) -> Iterator[None]:
        """While open, the images are of these modalities, (P,) long."""
        before = self.index, self._items
        self.index, self._items = index, None
        try:
            yield
        finally:
            self.index, self._items = before

    def items(self) -> dict[int, list[int]]:
        """Modality -> numbers of its images; found once a pass, as every look at a tensor's values waits for the GPU."""
        if self._items is None:
            self._items = {}
            for item, m in enumerate(self.index.tolist()):
                self._items.setdefault(m, []).append(item)
        return self._items


class ModalityNorm(nn.Module):
    """Instance normalisation whose scale and shift, or whose shift alone, depend on the modality.

    It is torch's instance normalisation, a batch normalisation of one sample with P * C channels, only that the channels of
    different images have different parameters: the same operations, values and cost.

    Args:
        norm: the instance normalisation that it replaces, with scale and shift; every modality starts with its values.
        num_modalities: M.
        shown: what the encoder sees.
        shift_only: a vector per modality, zero at first, is added to a common shift.

    Attributes:
        weight, bias: (M, C); with `shift_only` (C,), and embedding (M, C).
    """

    def __init__(self, norm: nn.Module, num_modalities: int, shown: ShownModality, shift_only: bool = False):
        super().__init__()
        self.eps, self.shown = norm.eps, shown
        each = (lambda old: old.detach().clone()) if shift_only else (lambda old: old.detach().repeat(num_modalities, 1))
        self.weight, self.bias = nn.Parameter(each(norm.weight)), nn.Parameter(each(norm.bias))
        self.embedding = nn.Parameter(norm.bias.new_zeros(num_modalities, len(norm.bias))) if shift_only else None

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of every image, (P, C) each."""
        index = self.shown.index
        if self.embedding is None:
            return self.weight[index], self.bias[index]
        return self.weight.expand(len(index), -1), self.bias + self.embedding[index]

    def forward(self, x: Tensor) -> Tensor:
        """(P, C, *spatial) -> the same."""
        scale, shift = self.affine()
        channels = x.reshape(1, -1, *x.shape[2:])  # (1, P * C, *spatial)
        out = F.batch_norm(channels, None, None, scale.reshape(-1), shift.reshape(-1), training=True, eps=self.eps)
        return out.view(x.shape)
