"""The gating network of SimMLM: how much each present modality's expert counts for each task."""
from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNELS = (16, 32, 64, 128, 256)  # five layers to 256 features (SimMLM, supplement, Table A1)


class Gate(nn.Module):
    """Five convolutions of stride 2, a global average, and one linear map to a score per modality and task.

    The average makes it independent of the patch size (the official code flattens, which fixes 128^3). Normalised over
    channels and space together: an instance norm before the average would erase each feature's mean, which is all that
    the average keeps, and cannot normalise the single voxel that a small patch ends in.

    The linear map starts at zero: training starts from the plain average of the experts.

    Args:
        num_modalities: M, the channels of the image.
        num_tasks: tasks that are weighted separately.
        dim: 2 or 3 spatial axes.
    """

    def __init__(self, num_modalities: int, num_tasks: int, dim: int):
        super().__init__()
        self.num_modalities = num_modalities
        convolution = nn.Conv3d if dim == 3 else nn.Conv2d
        layers: list[nn.Module] = []
        for before, after in zip((num_modalities, *CHANNELS), CHANNELS):
            layers += [convolution(before, after, 3, stride=2, padding=1), nn.GroupNorm(1, after),
                       nn.LeakyReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(CHANNELS[-1], num_modalities * num_tasks)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Scores before the softmax.

        Args:
            images: (B, M, *spatial), absent modalities zero.

        Returns:
            (B, M, tasks) float32.
        """
        pooled = self.features(images).flatten(2).mean(2)  # (B, 256)
        return self.linear(pooled).float().unflatten(1, (self.num_modalities, -1))


def log_weights(scores: Tensor, shown: Tensor) -> Tensor:
    """Logarithm of the softmax over the modalities that are shown.

    Args:
        scores: (B, M, tasks).
        shown: (B, M) bool with no empty row.

    Returns:
        (B, M, tasks), -inf where not shown; a single modality has exactly 0.
    """
    return scores.masked_fill(~shown[..., None], -torch.inf).log_softmax(1)
