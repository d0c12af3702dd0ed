"""The kinds of modalities a classification data set may have: KINDS maps the `type` of dataset.json to its Kind."""
from __future__ import annotations

from nnmiss.classification.kinds.array import ArrayKind, EmbeddingKind
from nnmiss.classification.kinds.audio import AudioKind
from nnmiss.classification.kinds.base import Kind
from nnmiss.classification.kinds.image2d import ImageKind
from nnmiss.classification.kinds.table import TableKind
from nnmiss.classification.kinds.timeseries import TimeSeriesKind
from nnmiss.classification.kinds.volume import VolumeKind

KINDS: dict[str, Kind] = {kind.name: kind for kind in (
    ImageKind(), VolumeKind(), AudioKind(), TimeSeriesKind(), TableKind(), ArrayKind(), EmbeddingKind())}
