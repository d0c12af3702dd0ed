"""One crop of every held-out case that stays the same over the training, so that scores on them compare."""
from __future__ import annotations

import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnmiss.seeding import seed_libraries


def fixed_crops(trainer, cases: list[str], batch_size: int) -> list[dict]:
    """Batches as nnU-Net's loader gives them, a crop of each case that has foreground in it, without augmentation.

    They depend on seed and case alone, not on the process, the stage or how often they were asked for.

    Args:
        trainer: a segmentation trainer.
        cases: names; the order of the crops.
        batch_size: crops in a batch.
    """
    configuration, labels = trainer.configuration_manager, trainer.label_manager
    transforms = trainer.get_validation_transforms(
        trainer._get_deep_supervision_scales(), is_cascaded=False, foreground_labels=labels.foreground_labels,
        regions=labels.foreground_regions if labels.has_regions else None, ignore_label=labels.ignore_label)
    crops = []
    for case in cases:
        seed_libraries(trainer.seed, "fixed crop", 0, case)
        dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, [case])
        crops.append(next(nnUNetDataLoader(dataset, 1, configuration.patch_size, configuration.patch_size, labels,
                                           oversample_foreground_percent=1.0, sampling_probabilities=None,
                                           pad_sides=None, transforms=transforms)))
    return [joined(crops[start : start + batch_size]) for start in range(0, len(crops), batch_size)]


def joined(batches: list[dict]) -> dict:
    """Batches as one."""
    targets = [batch["target"] for batch in batches]
    target = [torch.cat(scale) for scale in zip(*targets)] if isinstance(targets[0], list) else torch.cat(targets)
    return {"data": torch.cat([batch["data"] for batch in batches]), "target": target,
            "keys": [key for batch in batches for key in batch["keys"]]}
