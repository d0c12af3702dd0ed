"""Loading and augmenting patches: what nnU-Net's two loaders do not cover."""
from __future__ import annotations

from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA


def make_loader(trainer, cases: list[str], batch_size: int):
    """Endless batches of `cases` with the trainer's training augmentation (the official MetaKD code's choice too).

    Loads in one background process where nnU-Net loads in several, else in this process.
    """
    rotation, dummy_2d, initial_patch_size, mirror_axes = \
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    configuration, labels = trainer.configuration_manager, trainer.label_manager
    transforms = trainer.get_training_transforms(
        configuration.patch_size, rotation, trainer._get_deep_supervision_scales(), mirror_axes, dummy_2d,
        use_mask_for_norm=configuration.use_mask_for_norm, is_cascaded=False,
        foreground_labels=labels.foreground_labels, regions=labels.foreground_regions if labels.has_regions else None,
        ignore_label=labels.ignore_label)
    loader = nnUNetDataLoader(
        trainer.dataset_class(trainer.preprocessed_dataset_folder, list(cases)), batch_size, initial_patch_size,
        configuration.patch_size, labels, oversample_foreground_percent=trainer.oversample_of_batch,
        sampling_probabilities=None, pad_sides=None, transforms=transforms)
    if get_allowed_n_proc_DA() == 0:
        return SingleThreadedAugmenter(loader, None)
    return NonDetMultiThreadedAugmenter(loader, None, num_processes=1, num_cached=3, seeds=None,
                                        pin_memory=trainer.device.type == "cuda", wait_time=0.002)


def choose_without_timing(transforms):
    """Makes nnU-Net's blur choose its algorithm by size instead of by a stopwatch. Returns the transforms.

    The two algorithms differ in the last digits, so a choice by measured time makes two equal runs differ; and the
    measuring takes minutes on a slow machine. For loading in one process only, where runs can be replayed.
    """
    for transform in transforms.transforms:
        inner = getattr(transform, "transform", transform)
        if isinstance(inner, GaussianBlurTransform):
            inner.benchmark = False
    return transforms
