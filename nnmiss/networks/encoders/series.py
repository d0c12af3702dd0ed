"""Stacked LSTMs for time series of any length."""
from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from .base import Encoder


class Lstm(Encoder):
    """The last layer's state after each series' own last step, as MedFuse's stack of single-layer LSTMs gives it.

    Series are packed: what stands behind their end is never read. Starts as MedFuse's: Xavier's uniform initialisation
    for what reads the input, orthogonal for what reads the state.

    Args:
        shape: (T or None, F).
        hidden: width of each layer and number of features.
        layers: how many.
        dropout: of the features, so of what the heads and the fusion see; layers have none between them.
    """

    rank = 2
    any_length = True

    def __init__(self, shape: tuple[int | None, int], hidden: int = 256, layers: int = 2, dropout: float = 0.3):
        super().__init__()
        self.lstm = nn.LSTM(shape[1], hidden, layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.features = hidden
        for name, weight in self.lstm.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(weight)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(weight)

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is not None:
            values = pack_padded_sequence(values, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (state, _) = self.lstm(values)  # (layers, P, hidden)
        return self.dropout(state[-1])
