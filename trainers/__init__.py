"""The methods, one a file, and the table that names them."""
from __future__ import annotations

from nnmiss.errors import NnmissError, nearest_names

from .all_stage import nnMissTrainerAllStage
from .base import MissingModalityTrainer
from .lckd import nnMissTrainerLCKD
from .metakd import nnMissTrainerMetaKD
from .modality_dropout import nnMissTrainerModalityDropout
from .simmlm import nnMissTrainerSimMLM

METHODS: dict[str, type[MissingModalityTrainer]] = {
    "all_stage": nnMissTrainerAllStage,
    "lckd": nnMissTrainerLCKD,
    "metakd": nnMissTrainerMetaKD,
    "modality_dropout": nnMissTrainerModalityDropout,
    "simmlm": nnMissTrainerSimMLM,
}


def method_class(name: str) -> type[MissingModalityTrainer]:
    """The trainer of a method. Raises NnmissError with the nearest names."""
    if name not in METHODS:
        raise NnmissError(f"method {name!r} is unknown. {nearest_names(name, list(METHODS))}")
    return METHODS[name]


def method_of_trainer(trainer_name: str) -> type[MissingModalityTrainer]:
    """The trainer class a checkpoint names. Raises NnmissError when it is none of ours."""
    for trainer in METHODS.values():
        if trainer.__name__ == trainer_name:
            return trainer
    raise NnmissError(f"trainer {trainer_name!r} is none of nnmiss's "
                      f"({', '.join(t.__name__ for t in METHODS.values())})")
