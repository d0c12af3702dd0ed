"""Says what broke when nnU-Net moves: every internal we subclass, override or call, as it is in the pinned version."""
from __future__ import annotations

import inspect
from importlib.metadata import requires, version

import pytest
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

MOVED = "nnunetv2 {} moved: {} is no longer as nnmiss overrides or calls it. Look at {} and then at this test."

# object, attribute (or None), the parameter names it must have in this order, the file of ours that relies on it
SIGNATURES = [
    (nnUNetTrainer, "__init__", ["self", "plans", "configuration", "fold", "dataset_json", "device"], "trainers/base.py"),
    (nnUNetTrainer, "build_network_architecture", ["plans_manager", "configuration_manager", "num_input_channels",
                                                   "num_output_channels", "enable_deep_supervision"], "trainers/metakd.py"),
    (nnUNetTrainer, "do_split", ["self"], "trainers/base.py"),
    (nnUNetTrainer, "get_tr_and_val_datasets", ["self"], "trainers/base.py"),
    (nnUNetTrainer, "get_dataloaders", ["self"], "trainers/metakd.py"),
    (nnUNetTrainer, "train_step", ["self", "batch"], "trainers/base.py"),
    (nnUNetTrainer, "validation_step", ["self", "batch"], "trainers/base.py"),
    (nnUNetTrainer, "on_train_epoch_end", ["self", "train_outputs"], "trainers/base.py"),
    (nnUNetTrainer, "on_validation_epoch_end", ["self", "val_outputs"], "trainers/base.py"),
    (nnUNetTrainer, "perform_actual_validation", ["self", "save_probabilities"], "trainers/final_validation.py"),
    (nnUNetTrainer, "save_checkpoint", ["self", "filename"], "trainers/base.py"),
    (nnUNetTrainer, "load_checkpoint", ["self", "filename_or_checkpoint"], "trainers/base.py"),
    (nnUNetTrainer, "configure_rotation_dummyDA_mirroring_and_inital_patch_size", ["self"], "trainers/loaders.py"),
    (nnUNetTrainer, "get_training_transforms", ["patch_size", "rotation_for_DA", "deep_supervision_scales", "mirror_axes",
                                                "do_dummy_2d_data_aug", "use_mask_for_norm", "is_cascaded",
                                                "foreground_labels", "regions", "ignore_label"], "trainers/loaders.py"),
    (nnUNetDataLoader, "__init__", ["self", "data", "batch_size", "patch_size", "final_patch_size", "label_manager",
                                    "oversample_foreground_percent", "sampling_probabilities", "pad_sides",
                                    "probabilistic_oversampling", "transforms"], "trainers/loaders.py"),
    (MetaLogger, "__init__", ["self", "output_folder", "resume", "verbose"], "trainers/progress.py"),
    (MetaLogger, "plot_progress_png", ["self", "output_folder"], "trainers/progress.py"),
    (nnUNetPredictor, "manual_initialization", ["self", "network", "plans_manager", "configuration_manager", "parameters",
                                                "dataset_json", "trainer_name", "inference_allowed_mirroring_axes"],
     "nnmiss/inference/predictor.py"),
    (nnUNetPredictor, "_internal_get_sliding_window_slicers", ["self", "image_size"], "nnmiss/inference/predictor.py"),
    (compute_gaussian, None, ["tile_size", "sigma_scale", "value_scaling_factor", "dtype", "device"],
     "nnmiss/inference/predictor.py"),
    (convert_predicted_logits_to_segmentation_with_correct_shape, None,
     ["predicted_logits", "plans_manager", "configuration_manager", "label_manager", "properties_dict",
      "return_probabilities", "num_threads_torch"], "nnmiss/inference/export.py"),
    (DefaultPreprocessor, "run_case_npy", ["self", "data", "seg", "properties", "plans_manager", "configuration_manager",
                                           "dataset_json"], "nnmiss/preprocessing/preprocessor.py"),
    (DatasetFingerprintExtractor, "run", ["self", "overwrite_existing"], "nnmiss/preprocessing/fingerprint.py"),
    (DatasetFingerprintExtractor, "collect_foreground_intensities", ["segmentation", "images", "seed", "num_samples"],
     "nnmiss/preprocessing/intensity_statistics.py"),
    (ExperimentPlanner, "__init__", ["self", "dataset_name_or_id", "gpu_memory_target_in_gb", "preprocessor_name",
                                     "plans_name", "overwrite_target_spacing", "suppress_transpose"], "planners/plain.py"),
    (ExperimentPlanner, "save_plans", ["self", "plans"], "planners/base.py"),
    (ExperimentPlanner, "generate_data_identifier", ["self", "configuration_name"], "planners/base.py"),
    (ExperimentPlanner, "static_estimate_VRAM_usage", ["patch_size", "input_channels", "output_channels",
                                                       "arch_class_name", "arch_kwargs", "arch_kwargs_req_import"],
     "planners/base.py"),
    (get_network_from_plans, None,
     ["arch_class_name", "arch_kwargs", "arch_kwargs_req_import", "input_channels", "output_channels", "allow_init",
      "deep_supervision"], "nnmiss/networks/architecture.py"),
]

# source fragments we rely on without a signature saying so
FRAGMENTS = [
    (nnUNetTrainer.__init__, 'plans.pop("continue_training")', "trainers/base.py"),
    (nnUNetTrainer.validation_step, "output = self.network(data)", "trainers/base.py (showing)"),
    (nnUNetTrainer.set_deep_supervision_enabled, "mod.decoder.deep_supervision = enabled", "nnmiss/networks/base.py"),
    (nnUNetTrainer.on_epoch_end, "self.logger.plot_progress_png(self.output_folder)", "trainers/progress.py"),
    (nnUNetTrainer.on_epoch_end, "checkpoint_latest.pth", "trainers/run.py"),
    (nnUNetTrainer.on_train_end, "checkpoint_final.pth", "trainers/run.py"),
    (nnUNetDataLoader.generate_train_batch, "'keys': selected_keys", "trainers/base.py (available_of)"),
    (DatasetFingerprintExtractor.run, "DatasetFingerprintExtractor.analyze_case", "nnmiss/preprocessing/fingerprint.py"),
    (ExperimentPlanner.plan_experiment, "self.save_plans(plans)", "planners/base.py"),
]


@pytest.mark.parametrize("owner, name, expected, ours", SIGNATURES, ids=lambda v: getattr(v, "__name__", None) or str(v))
def test_signatures_are_as_we_override_or_call_them(owner, name, expected, ours):
    found = list(inspect.signature(getattr(owner, name) if name else owner).parameters)
    what = f"{owner.__name__}.{name}" if name else owner.__name__
    assert found == expected, MOVED.format(version("nnunetv2"), what, ours)


@pytest.mark.parametrize("function, fragment, ours", FRAGMENTS, ids=lambda v: getattr(v, "__qualname__", None) or str(v))
def test_what_we_rely_on_is_still_done_there(function, fragment, ours):
    assert fragment in inspect.getsource(function), MOVED.format(version("nnunetv2"), function.__qualname__, ours)


def test_the_blur_can_be_told_not_to_use_a_stopwatch():
    blur = GaussianBlurTransform((0.5, 1.0), False, False, benchmark=True)
    what = "GaussianBlurTransform.benchmark"
    assert blur.benchmark is True, MOVED.format(version("nnunetv2"), what, "trainers/loaders.py")


def test_nnunet_is_pinned_to_the_minor_version_these_tests_are_for():
    pin = next(r for r in requires("nnmiss") if r.startswith("nnunetv2"))
    assert "<2.9" in pin
    assert "2.8.1" in pin
    assert version("nnunetv2").startswith("2.8.")
