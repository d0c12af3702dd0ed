"""Re-exports our trainers, so that nnU-Net's own commands find them through `nnUNet_extTrainer` = this folder.

nnU-Net forgets every module that it imported from that folder, which would make second, unpicklable copies of the
classes if they were defined here.
"""
from nnmiss.trainers.all_stage import nnMissTrainerAllStage
from nnmiss.trainers.lckd import nnMissTrainerLCKD
from nnmiss.trainers.metakd import nnMissTrainerMetaKD
from nnmiss.trainers.modality_dropout import nnMissTrainerModalityDropout
from nnmiss.trainers.simmlm import nnMissTrainerSimMLM

__all__ = ["nnMissTrainerAllStage", "nnMissTrainerLCKD", "nnMissTrainerMetaKD", "nnMissTrainerModalityDropout",
           "nnMissTrainerSimMLM"]
