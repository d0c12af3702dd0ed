"""A multi-layer perceptron for tables, arrays and embeddings."""
from __future__ import annotations

from torch import Tensor, nn

from nnmiss.errors import NnmissError

from .base import Encoder, fully_connected, num_values


class Mlp(Encoder):
    """Linear layers with ReLU and dropout over all values of a sample.

    No batch normalisation: a table is often present in a few rows of a batch only.

    Args:
        shape: any fixed shape.
        hidden: width of each layer; the last is the number of features.
        dropout: after each layer.
    """

    def __init__(self, shape: tuple[int, ...], hidden: list[int] = (128, 64), dropout: float = 0.0):
        super().__init__()
        if not hidden:
            raise NnmissError("encoder mlp needs at least one hidden layer, as \"hidden\": [64]")
        self.flatten = nn.Flatten()
        self.layers = fully_connected([num_values(shape), *hidden], dropout)
        self.features = hidden[-1]

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.layers(self.flatten(values))
