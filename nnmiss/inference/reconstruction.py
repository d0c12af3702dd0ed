"""Reconstructed modalities in the input's geometry and intensity scale, by methods that have a recovery module."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from nnmiss.availability import Present, modality_names
from nnmiss.errors import NnmissError
from nnmiss.inference.checked_build import check_weights
from nnmiss.inference.checkpoints import read_checkpoint
from nnmiss.inference.export import write_map
from nnmiss.inference.intensities import check_invertible, restore_intensities
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.inference.reconstruction_figure import Panel, write_figure
from nnmiss.networks.base import MissingModalityNetwork
from nnmiss.preprocessing.raw_dataset import RawCase
from nnmiss.preprocessing.read_case import CaseImages, read_case

FOLDER = "reconstructions"


class RecoveryPredictor(MissingModalityPredictor):
    """Sliding window of a recovery module, whose outputs are the M modalities as the preprocessor gives them."""

    @property
    def num_outputs(self) -> int:
        return len(modality_names(self.dataset_json))


@dataclass(frozen=True)
class Reconstructions:
    """Reconstructs and writes the modalities that subsets of the cases of one call lack.

    Attributes:
        predictor: runs the recovery modules of the folds; their mean counts.
        cases: name -> files, for the intensities of modalities that are there but not shown.
    """

    predictor: RecoveryPredictor
    cases: dict[str, RawCase]

    def predict(self, data: Tensor, present: Present) -> np.ndarray | None:
        """The modalities not in `present` (C, *spatial) float32, normalised; None where nothing is missing.

        Args:
            data: (M, *spatial) float32, as the preprocessor gives it.
            present: non-empty subset of what the image has.
        """
        if all(present):
            return None
        ((_, images),) = self.predictor.predict_subsets(data, [present])
        return images[[c for c, shown in enumerate(present) if not shown]]

    def write(self, missing: np.ndarray, foreground: np.ndarray, case: str, properties: dict, present: Present,
              folder: Path) -> None:
        """Writes folder/reconstructions/CASE_000X<ending> for the modalities not in `present`, and CASE.png.

        Args:
            missing: as `predict` gives it.
            foreground: (*spatial) bool, the prediction; its middle is drawn.
            case: name.
            properties: nnU-Net's, of the case.
            present: what was shown.
            folder: of the segmentations.
        """
        plans, configuration = self.predictor.plans_manager, self.predictor.configuration_manager
        modalities, ending = modality_names(self.predictor.dataset_json), self.predictor.dataset_json["file_ending"]
        images = read_case(self.cases[case], modalities, plans.image_reader_writer_class,
                           configuration.configuration.get("nnmiss", {}).get("blank_is_missing", False), checked=True)
        channels = [c for c, shown in enumerate(present) if not shown]
        cropped = restore_intensities(self.resampled(missing, properties), channels, images, plans, configuration)
        whole = self.uncropped(cropped, properties)
        (folder / FOLDER).mkdir(exist_ok=True)
        for image, c in zip(whole, channels):
            write_map(image, properties, folder / FOLDER / f"{case}_{c:04d}", ending)
        middle = self.uncropped(self.resampled(foreground[None].astype(np.float32), properties) > 0.5, properties)[0]
        write_figure(panels(images, whole, channels, present, modalities), middle, properties["spacing"],
                     f"{case}: reconstructed from what is shown", folder / FOLDER / f"{case}.png")

    def resampled(self, images: np.ndarray, properties: dict) -> np.ndarray:
        """(C, *spatial) of the preprocessed grid -> (C, *cropped), as nnU-Net resamples images."""
        configuration = self.predictor.configuration_manager
        spacing = [properties["spacing"][axis] for axis in self.predictor.plans_manager.transpose_forward]
        current, shape = configuration.spacing, properties["shape_after_cropping_and_before_resampling"]
        if len(current) < len(shape):  # a 2D configuration leaves the slices where they are
            current = [spacing[0], *current]
        return np.asarray(configuration.resampling_fn_data(images, shape, current, spacing))

    def uncropped(self, images: np.ndarray, properties: dict) -> np.ndarray:
        """(C, *cropped) -> (C, *original), 0 outside the crop."""
        whole = np.zeros((len(images), *properties["shape_before_cropping"]), dtype=images.dtype)
        box = tuple(slice(*bounds) for bounds in properties["bbox_used_for_cropping"])
        whole[(slice(None), *box)] = images
        return whole.transpose([0, *[axis + 1 for axis in self.predictor.plans_manager.transpose_backward]])


def panels(images: CaseImages, reconstructed: np.ndarray, channels: list[int], present: Present,
           modalities: list[str]) -> list[list[Panel]]:
    """Rows of the figure: for each reconstructed modality the inputs, the reconstruction and the truth, if there is one."""
    rows = {c: i for i, c in enumerate(c for c, has in enumerate(images.available) if has)}
    inputs = [Panel(f"input {modalities[c]}", images.data[rows[c]]) for c, shown in enumerate(present) if shown]
    drawn = []
    for image, c in zip(reconstructed, channels):
        truth = images.data[rows[c]] if c in rows else None
        row = [*inputs, Panel(f"reconstructed {modalities[c]}", image, window=truth if truth is not None else image)]
        drawn.append(row if truth is None else [*row, Panel(f"true {modalities[c]}", truth)])
    return drawn


def load_reconstructions(predictor: MissingModalityPredictor, trainer_class, cases: list[RawCase],
                         stage: str = "") -> Reconstructions:
    """The recovery modules beside the segmentation networks that `predictor` was initialised with.

    Args:
        predictor: initialised from a model folder.
        trainer_class: the method's trainer, which builds the module (MissingModalityTrainer.build_recovery).
        cases: that will be predicted.
        stage: take the network of this earlier stage, one that trains the module alone, from its final checkpoint.

    Raises:
        NnmissError: the method, stage or checkpoint has no recovery module, or a normalisation cannot be undone.
    """
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    modalities = modality_names(predictor.dataset_json)
    network = trainer_class.build_recovery(plans, configuration, len(modalities))
    if network is None:
        raise NnmissError(f"--save_reconstructions: method {trainer_class.method} reconstructs no modalities, all_stage "
                          "does: leave the flag out")
    check_invertible(configuration, modalities)
    weights = [_recovery_weights(predictor, network, fold, stage) for fold in predictor.folds]
    recovery = RecoveryPredictor(predictor.tile_step_size, use_mirroring=False, device=predictor.device, allow_tqdm=False,
                                 perform_everything_on_device=predictor.perform_everything_on_device)
    recovery.manual_initialization(network, plans, configuration, weights, predictor.dataset_json, predictor.trainer_name,
                                   None)
    network.load_state_dict(weights[0])
    return Reconstructions(recovery, {case.name: case for case in cases})


def _recovery_weights(predictor: MissingModalityPredictor, network: MissingModalityNetwork, fold: int | str,
                      stage: str) -> dict[str, Tensor]:
    """One fold's weights of `network`, from the checkpoint's method state or as an earlier stage's own network."""
    folder = predictor.model_folder / f"fold_{fold}"
    if stage and not (folder / f"stage_{stage}").is_dir():
        last = read_checkpoint(folder / predictor.checkpoint_name).get("nnmiss", {}).get("stage")
        stage = "" if stage == last else stage
    file = folder / f"stage_{stage}" / "checkpoint_final.pth" if stage else folder / predictor.checkpoint_name
    if not file.is_file():
        stages = ", ".join(path.name.removeprefix("stage_") for path in sorted(folder.glob("stage_*"))) or "none"
        raise NnmissError(f"--save_reconstructions {stage}: {file} not found; earlier stages: {stages}")
    checkpoint = read_checkpoint(file)
    weights = checkpoint["network_weights"] if stage else checkpoint.get("nnmiss", {}).get("state", {}).get("recovery")
    if not isinstance(weights, dict) or weights.keys() != network.state_dict().keys():
        raise NnmissError(f"--save_reconstructions{' ' * bool(stage)}{stage}: {file} holds no recovery module")
    check_weights(network, weights, str(file))
    return weights
