"""The methods, one a file, and the table that names them."""
from __future__ import annotations

from nnmiss.errors import NnmissError, nearest_names

from .all_stage import nnMissTrainerAllStage
from .base import MissingModalityTrainer
from .classification import ClassificationTrainer
from .fusion import nnMissClassifierFusion
from .lckd import nnMissClassifierLCKD, nnMissTrainerLCKD
from .metakd import nnMissClassifierMetaKD, nnMissTrainerMetaKD
from .mind import nnMissClassifierMIND
from .mind_baselines import (
    nnMissClassifierMKE,
    nnMissClassifierTS,
    nnMissClassifierUME,
    nnMissClassifierVanilla,
    nnMissClassifierVanilla3H,
)
from .modality_dropout import nnMissClassifierModalityDropout, nnMissTrainerModalityDropout
from .simmlm import nnMissClassifierSimMLM, nnMissTrainerSimMLM
from .unimodal import nnMissClassifierUnimodal

METHODS: dict[str, type[MissingModalityTrainer]] = {
    "all_stage": nnMissTrainerAllStage,
    "lckd": nnMissTrainerLCKD,
    "metakd": nnMissTrainerMetaKD,
    "modality_dropout": nnMissTrainerModalityDropout,
    "simmlm": nnMissTrainerSimMLM,
}

CLASSIFIERS: dict[str, type[ClassificationTrainer]] = {
    "fusion": nnMissClassifierFusion,
    "lckd": nnMissClassifierLCKD,
    "metakd": nnMissClassifierMetaKD,
    "mind": nnMissClassifierMIND,
    "mke": nnMissClassifierMKE,
    "modality_dropout": nnMissClassifierModalityDropout,
    "simmlm": nnMissClassifierSimMLM,
    "ts": nnMissClassifierTS,
    "ume": nnMissClassifierUME,
    "unimodal": nnMissClassifierUnimodal,
    "vanilla": nnMissClassifierVanilla,
    "vanilla_3h": nnMissClassifierVanilla3H,
}


def method_class(name: str) -> type[MissingModalityTrainer]:
    """The segmentation trainer of a method. Raises NnmissError with the nearest names."""
    return _named(name, METHODS, CLASSIFIERS, "segmentation")


def classifier_class(name: str) -> type[ClassificationTrainer]:
    """The classification trainer of a method. Raises NnmissError with the nearest names."""
    return _named(name, CLASSIFIERS, METHODS, "classification")


def _named(name: str, table: dict[str, type], others: dict[str, type], kind: str) -> type:
    if name in table:
        return table[name]
    if name in others:
        raise NnmissError(f"method {name!r} is not for {kind} data sets. Methods for them: {', '.join(table)}")
    raise NnmissError(f"method {name!r} is unknown for {kind} data sets. {nearest_names(name, list(table))}")


def method_of_trainer(trainer_name: str) -> type[MissingModalityTrainer]:
    """The trainer class a checkpoint of segmentation names. Raises NnmissError when it is none of ours."""
    return _of_trainer(trainer_name, METHODS)


def classifier_of_trainer(trainer_name: str) -> type[ClassificationTrainer]:
    """The trainer class a checkpoint of classification names. Raises NnmissError when it is none of ours."""
    return _of_trainer(trainer_name, CLASSIFIERS)


def _of_trainer(trainer_name: str, table: dict[str, type]) -> type:
    for trainer in table.values():
        if trainer.__name__ == trainer_name:
            return trainer
    raise NnmissError(f"trainer {trainer_name!r} is none of nnmiss's ({', '.join(t.__name__ for t in table.values())})")
