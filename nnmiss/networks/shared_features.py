"""An encoder per modality, features of one common size, missing ones generated from the present ones: MetaKD's network."""
from __future__ import annotations

from torch import Tensor, nn

from nnmiss.errors import NnmissError
from nnmiss.networks.classifier import MissingModalityClassifier, unpack
from nnmiss.networks.encoders import build_encoders
from nnmiss.networks.encoders.base import Encoder, fully_connected


class SharedFeatureClassifier(MissingModalityClassifier):
    """MetaKD (Eq. 2 to 4) and LCKD for modalities of unlike kinds.

    The paper averages features (Eq. 2) and takes their distances (Eq. 5), yet its encoders give 160 and 320 numbers, and
    cannot be shared between an image and a table. So each modality has an encoder of its own, and a learned linear map
    to a common size.

    Args:
        encoders: one per modality.
        feature_dim: D, the common size.
        num_outputs: outputs of the head.
        hidden: widths of the fully connected layers between the concatenated features and the outputs.
        dropout: after each of them; one rate, or one per layer.
        imputation: a missing modality's features are the mean of the present ones (Eq. 2); False: zeros.
        projection: the linear maps; without them every encoder must give `feature_dim` features.

    Raises:
        NnmissError: without projection, an encoder of another size.
    """

    def __init__(self, encoders: list[Encoder], feature_dim: int, num_outputs: int, hidden: list[int] = (64,),
                 dropout: float | list[float] = 0.5, imputation: bool = True, projection: bool = True):
        super().__init__(len(encoders), num_outputs)
        for m, encoder in enumerate(encoders):
            if not projection and encoder.features != feature_dim:
                raise NnmissError(f"without projection every encoder must give feature_dim = {feature_dim} features, "
                                  f"encoder {m + 1} gives {encoder.features}: set projection=true")
        self.encoders = nn.ModuleList(encoders)
        self.projections = nn.ModuleList(nn.Linear(e.features, feature_dim) if projection else nn.Identity()
                                         for e in encoders)
        sizes = [len(encoders) * feature_dim, *hidden]
        self.head = fully_connected(sizes, dropout)
        self.output = nn.Linear(sizes[-1], num_outputs)
        self.imputation = imputation

    def encode_modality(self, modality, shown):
        return self.projections[modality](self.encoders[modality](shown.values, shown.lengths))

    def fuse(self, features: Tensor, index: Tensor, importance: Tensor | None = None) -> Tensor:
        shown = (index >= 0)[..., None]  # (B, M, 1)
        table = unpack(features, index)  # (B, M, D)
        if self.imputation:
            mean = table.sum(1, keepdim=True) / shown.sum(1, keepdim=True).clamp_min(1)  # (B, 1, D)
            table = shown * table + ~shown * mean
        if importance is not None:
            table = table * importance[:, None].to(table.dtype)
        return table.flatten(1)  # (B, M * D)

    def decode(self, fused):
        return self.output(self.head(fused))


def build_shared_features(configuration: dict, shapes: dict, num_outputs: int, encoders: str = "",
                          imputation: bool = True, projection: bool = True) -> SharedFeatureClassifier:
    """The plan's encoders, common feature size and head.

    Args:
        configuration: the plan's: "feature_dim", "head": {"hidden", "dropout"}, "modalities".
        shapes: modality -> shape of one sample.
        num_outputs: see nnmiss.classification.tasks.num_outputs.
        encoders: other encoders than the plan's, see nnmiss.networks.encoders.parse_encoders.
        imputation, projection: see SharedFeatureClassifier.
    """
    head, built = configuration["head"], build_encoders(configuration, shapes, encoders)
    return SharedFeatureClassifier(built, configuration["feature_dim"], num_outputs, head["hidden"], head["dropout"],
                                   imputation, projection)
