"""nnU-Net's predictor for any subset of modalities: each modality is encoded once per tile and chunk of subsets."""
from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stdout
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor
from tqdm import tqdm

from nnmiss.atomic_files import read_json
from nnmiss.availability import Present, modality_names
from nnmiss.errors import NnmissError
from nnmiss.inference.checked_build import build_checked
from nnmiss.inference.checkpoints import entry, mirroring_axes, read_checkpoint, trained_models
from nnmiss.inference.memory import free_bytes, how_many, subsets_at_once
from nnmiss.networks.memory_format import fastest_layout
from nnmiss.plain_names import shown
from nnmiss.preprocessing.dataset_folders import check_description
from nnmiss.preprocessing.plan_checks import check_plans


class MissingModalityPredictor(nnUNetPredictor):
    """Sliding-window prediction of one or many subsets of the same preprocessed image.

    Takes nnU-Net's arguments. Differs from stock in that tiles are accumulated in float32 (stock: half, which turns
    a difference of 1e-5 in a tile into 0.08 in the fused logits), and that checkpoints are never unpickled.
    """

    def __init__(self, *args, device: torch.device, **kwargs):
        with redirect_stdout(io.StringIO()):  # stock prints a note about results on the device for every CPU run
            super().__init__(*args, device=device, **kwargs)

    def initialize_from_folder(self, model_folder: str | Path, folds: list[int | str] | None, checkpoint_name: str,
                               trainer_class_of) -> None:
        """Loads a trained model; several folds become an ensemble.

        Args:
            model_folder: <Trainer>__<Plans>__<configuration>.
            folds: fold numbers or "all"; None takes every numbered fold that has the checkpoint.
            checkpoint_name: such as checkpoint_final.pth.
            trainer_class_of: trainer name -> trainer class (nnmiss.trainers.method_of_trainer), given by the caller
                because methods build on this package and not the other way round.

        Raises:
            NnmissError: no such model or fold, a refused checkpoint, or one of another method.
        """
        model_folder = Path(model_folder)
        if not model_folder.is_dir():
            raise NnmissError(f"no trained model in {model_folder}: {trained_models(model_folder.parent)}")
        folds = folds if folds is not None else find_folds(model_folder, checkpoint_name)
        dataset_json = read_json(model_folder / "dataset.json", "the model's dataset.json",
                                 ("channel_names", "labels", "file_ending"))
        check_description(dataset_json, str(model_folder / "dataset.json"))
        plans_manager = PlansManager(check_plans(
            read_json(model_folder / "plans.json", "the model's plans", ("configurations", "plans_name")),
            str(model_folder / "plans.json")))
        files = [model_folder / f"fold_{fold}" / checkpoint_name for fold in folds]
        absent = [str(file) for file in files if not file.is_file()]
        if absent:
            raise NnmissError(f"{absent[0]} not found; folds with {checkpoint_name}: "
                              f"{', '.join(map(str, find_folds(model_folder, checkpoint_name)))}")
        checkpoints = [read_checkpoint(file) for file in files]
        expected = model_folder.name.partition("__")[0]
        for file, checkpoint in zip(files, checkpoints):
            if checkpoint.get("trainer_name") != expected:
                raise NnmissError(f"{file} was trained by {checkpoint.get('trainer_name')}, but lies in a folder of "
                                  f"{expected}: put back the fold's own checkpoint")
        first = checkpoints[0]
        configuration = entry(first, files[0], "init_args", "configuration")
        if configuration not in plans_manager.plans["configurations"]:
            raise NnmissError(f"{files[0]} is of configuration {shown(configuration)}, which plans.json of {model_folder} "
                              "lacks")
        configuration_manager = plans_manager.get_configuration(configuration)
        trainer_class, num_modalities = trainer_class_of(first["trainer_name"]), len(modality_names(dataset_json))
        heads = plans_manager.get_label_manager(dataset_json).num_segmentation_heads
        network = build_checked(
            lambda: trainer_class.build_network_architecture(plans_manager, configuration_manager, num_modalities, heads,
                                                             enable_deep_supervision=False),
            {str(file): checkpoint["network_weights"] for file, checkpoint in zip(files, checkpoints)},
            str(model_folder / "plans.json"))
        self.manual_initialization(network, plans_manager, configuration_manager,
                                   [c["network_weights"] for c in checkpoints], dataset_json, first["trainer_name"],
                                   mirroring_axes(first, files[0]))
        network.load_state_dict(self.list_of_parameters[0])
        self.model_folder, self.folds, self.checkpoint_name = model_folder, list(folds), checkpoint_name

    @property
    def num_outputs(self) -> int:
        """Channels of what the network gives: K."""
        return self.label_manager.num_segmentation_heads

    # ---- subsets ------------------------------------------------------------------------------------------------

    def predict_subsets(self, data: Tensor, presents: list[Present]) -> Iterator[tuple[Present, np.ndarray]]:
        """Logits of one preprocessed image under several subsets, one after the other.

        Args:
            data: (M, *spatial) float32, as the preprocessor gives it; absent channels hold anything.
            presents: non-empty subsets of what the image has.

        Yields:
            (present, logits (K, *spatial) float32), in the order of `presents`. Subsets are worked on in chunks whose
            memory does not depend on how many there are; what is yielded is not held here any longer.
        """
        size = max(int(np.prod(data.shape[1:])), int(np.prod(self.configuration_manager.patch_size)))
        at_once = subsets_at_once(size, int(np.prod(self.configuration_manager.patch_size)), self.num_outputs, self.device)
        for start in range(0, len(presents), at_once):
            chunk = presents[start : start + at_once]
            logits = self._ensemble(data, torch.tensor(chunk))  # S of (K, *spatial)
            for present in chunk:
                yield present, logits.pop(0).numpy()

    @torch.inference_mode()
    def _ensemble(self, data: Tensor, presents: Tensor) -> list[Tensor]:
        """Mean logits over the folds, one (K, *spatial) float32 on the CPU for each subset."""
        self.network = fastest_layout(self.network.to(self.device), self.device).eval()
        patch = self.configuration_manager.patch_size
        data, unpad = pad_nd_image(data, patch, "constant", {"value": 0}, True, None)
        heads, shape = self.num_outputs, data.shape[1:]
        on = self._device_for(len(presents) * heads * int(np.prod(shape)) * 4)
        # one tensor for each subset, so that a written one frees its memory
        logits, weight = [torch.zeros((heads, *shape), device=on) for _ in presents], torch.zeros(shape, device=on)
        # None: a network in training, for its own validation
        for parameters in self.list_of_parameters or [None]:
            if len(self.list_of_parameters or ()) > 1:
                getattr(self.network, "_orig_mod", self.network).load_state_dict(parameters)
            self._sliding_window(data, presents, logits, weight)
        for subset, one in enumerate(logits):
            logits[subset] = one.div_(weight)[(slice(None), *unpad[1:])].cpu()
            if not math.isfinite(logits[subset].sum()):
                raise NnmissError("the network's logits are not finite: the checkpoint is broken or the image's "
                                  "intensities are far outside those of training")
        return logits

    def _sliding_window(self, data: Tensor, presents: Tensor, logits: list[Tensor], weight: Tensor) -> None:
        """Adds every tile's weighted logits to those of the subsets, and the weights to `weight` (*spatial)."""
        patch, on = self.configuration_manager.patch_size, weight.device
        gaussian = (compute_gaussian(tuple(patch), sigma_scale=1.0 / 8, value_scaling_factor=10, dtype=torch.float32,
                                     device=on) if self.use_gaussian else torch.ones(tuple(patch), device=on))
        presents, batch = presents.to(self.device), self._decode_at_once(patch)
        slicers = self._internal_get_sliding_window_slicers(data.shape[1:])
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            for where in tqdm(slicers, disable=not self.allow_tqdm, leave=False, desc="tiles"):
                tile = self._tile(data[where].to(self.device), presents, batch).to(on)  # (S, K, *patch)
                for total, one in zip(logits, tile):
                    total[where].addcmul_(one, gaussian)
                weight[where[1:]] += gaussian

    def _decode_at_once(self, patch) -> int:
        """How many images are encoded or decoded together: about six maps of the finest scale are alive for each."""
        return how_many(int(np.prod(patch)) * self.network.finest_width * 4 * 6, self.device, 0.25, 16)

    def _tile(self, tile: Tensor, presents: Tensor, batch: int) -> Tensor:
        """Logits of one tile, averaged over its mirrored versions: (S, K, *patch) float32."""
        axes = (self.allowed_mirroring_axes or ()) if self.use_mirroring else ()
        flips = [c for n in range(len(axes) + 1) for c in combinations([a + 1 for a in axes], n)]
        together = max(1, min(len(flips), batch // int(presents.any(0).sum()), 2 * batch // len(presents)))
        total = None
        for start in range(0, len(flips), together):
            some = flips[start : start + together]
            images = torch.stack([tile.flip(flip) for flip in some])  # (T, M, *patch)
            logits = self.network.forward_subsets(images, presents, batch)  # (T, S, K, *patch)
            for one, flip in zip(logits, some):
                one = one.flip([axis + 1 for axis in flip]) if flip else one
                total = one if total is None else total.add_(one)
        return total.div_(len(flips))

    def _device_for(self, needed: int) -> torch.device:
        """Where results are accumulated: on the device if they take at most half of what is free, else main memory."""
        if self.device.type == "cuda" and self.perform_everything_on_device and 2 * needed <= free_bytes(self.device):
            return self.device
        return torch.device("cpu")


def find_folds(model_folder: Path, checkpoint_name: str) -> list[int | str]:
    """The numbered folds of a model that have the checkpoint, else "all" if that was trained.

    Raises NnmissError when nothing was trained to the end.
    """
    have = [p.parent.name.removeprefix("fold_") for p in sorted(Path(model_folder).glob(f"fold_*/{checkpoint_name}"))]
    folds = [int(name) for name in have if name.isdigit()] or [name for name in have if name == "all"]
    if not folds:
        raise NnmissError(f"{model_folder} has no fold with {checkpoint_name}: finish training, or name a checkpoint "
                          "that exists with -chk (checkpoint_best.pth, checkpoint_latest.pth)")
    return folds
