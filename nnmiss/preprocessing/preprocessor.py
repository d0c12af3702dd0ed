"""nnU-Net's preprocessor for a case with holes: the available channels as nnU-Net would, the absent ones exactly zero."""
from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnmiss.atomic_files import naming_full_disk
from nnmiss.availability import Present, modality_names
from nnmiss.errors import NnmissError
from nnmiss.nifti_header import ALWAYS_FREE, COPIES, memory
from nnmiss.preprocessing.dataset_folders import known_labels
from nnmiss.preprocessing.finished_cases import BLANK
from nnmiss.preprocessing.raw_dataset import RawCase
from nnmiss.preprocessing.read_case import CaseImages, read_case, read_label

Preprocessed = tuple[np.ndarray, np.ndarray, dict]  # data (M, *spatial) float32, seg (1, *spatial), properties
LARGEST_GROWTH = 100  # along each resampled axis: a PET of 5 mm on a grid of 0.5 mm has 10, units mixed up have 1000
PARTIAL = ".partial"  # sub-folder for files that are not whole yet; nnU-Net lists files only


def restrict_managers(available: Present, plans_manager: PlansManager, configuration_manager: ConfigurationManager,
                      ) -> tuple[PlansManager, ConfigurationManager]:
    """The managers of a plan for `available` channels only; the given ones when all are available."""
    if all(available):
        return plans_manager, configuration_manager
    kept = [c for c, has in enumerate(available) if has]
    intensities = plans_manager.foreground_intensity_properties_per_channel
    plans = {**plans_manager.plans, "foreground_intensity_properties_per_channel":
             {str(i): intensities[str(c)] for i, c in enumerate(kept)}}
    configuration = {**configuration_manager.configuration}
    for key in ("normalization_schemes", "use_mask_for_norm"):
        configuration[key] = [configuration[key][c] for c in kept]
    return PlansManager(plans), ConfigurationManager(configuration)


def check_resampling(case: str, images: CaseImages, plans_manager: PlansManager,
                     configuration_manager: ConfigurationManager) -> None:
    """Raises NnmissError for a case of unbelievable voxel size (resampled it would be nothing, or enormous).

    Also for one that is too large for the free memory when it is resampled.
    """
    if configuration_manager.configuration.get("resampling_fn_data") == "no_resampling_hack":
        return
    spacing = [float(images.properties["spacing"][i]) for i in plans_manager.transpose_forward]
    shape = [images.data.shape[1 + i] for i in plans_manager.transpose_forward]
    target = list(configuration_manager.spacing)
    target = [*spacing[: len(spacing) - len(target)], *target]  # 2d leaves the slices where they are
    resampled = [round(n * own / wanted) for n, own, wanted in zip(shape, spacing, target)]
    growth = math.prod(resampled) / math.prod(shape)
    own, wanted, before, after = (" x ".join(f"{v:g}" for v in vs) for vs in (spacing, target, shape, resampled))
    if min(resampled) < 1 or growth > LARGEST_GROWTH ** len(configuration_manager.spacing):
        raise NnmissError(f"case {case}: its voxels of {own} mm are not believable beside the plan's of {wanted} mm "
                          f"({before} voxels would become {after}): is the unit in the header not mm? Correct its files")
    needed = math.prod(resampled) * 4 * (len(images.data) + COPIES)
    if growth > 1 and needed > ALWAYS_FREE and needed > memory():
        raise NnmissError(f"case {case}: resampled from voxels of {own} mm to the plan's of {wanted} mm it has {after} "
                          f"voxels (now {before}), for which {needed / 2**30:.1f} GB of memory are not free: use fewer "
                          "processes (-np) or a machine with more, plan with a larger -overwrite_target_spacing, or "
                          "correct its header")


class MissingModalityPreprocessor(DefaultPreprocessor):
    """Runs nnU-Net's own run_case_npy on the available channels and puts zeros where channels are absent.

    So crop and normalisation see available channels only, an absent channel is 0 under every normalisation (also CT),
    absent channels cost nothing, and a complete case passes through nnU-Net's code unchanged.
    """

    def __init__(self, verbose: bool = False):
        super().__init__(verbose=verbose)

    def run_arrays(self, images: np.ndarray, seg: np.ndarray | None, available: Present, properties: dict,
                   plans_manager: PlansManager, configuration_manager: ConfigurationManager,
                   dataset_json: dict) -> Preprocessed:
        """Preprocesses arrays as read_case and read_label give them.

        Args:
            images: (A, *spatial), the available channels in channel order.
            seg: (1, *spatial) or None; with None the returned seg is nnU-Net's nonzero mask (0 inside, -1 outside).
            available: (M,) with A True entries.
            properties: nnU-Net's, of the images. Left as it is.
            plans_manager, configuration_manager: of the whole plan, not restricted.
            dataset_json: nnU-Net's.

        Returns:
            data (M, *spatial) float32, absent channels 0; seg (1, *spatial) int8 or int16; nnU-Net's properties plus
            "nnmiss_available", a list of bools.
        """
        managers = restrict_managers(available, plans_manager, configuration_manager)
        data, seg, properties = self.run_case_npy(images, seg, dict(properties), *managers, dataset_json)
        properties["nnmiss_available"] = [bool(has) for has in available]
        if all(available):
            return data.astype(np.float32, copy=False), seg, properties
        whole = np.zeros((len(available), *data.shape[1:]), dtype=np.float32)
        whole[[c for c, has in enumerate(available) if has]] = data
        return whole, seg, properties

    def run_raw_case(self, case: RawCase, plans_manager: PlansManager, configuration_manager: ConfigurationManager,
                     dataset_json: dict, blank_is_missing: bool = False,
                     checked: bool = False) -> tuple[Preprocessed, CaseImages]:
        """Reads, checks and preprocesses one case; its label too when `case.label` is set. Errors as read_case."""
        reader_class = plans_manager.image_reader_writer_class
        images = read_case(case, modality_names(dataset_json), reader_class, blank_is_missing, checked=checked)
        seg = None
        if case.label is not None:
            seg = read_label(case, reader_class, images, known_labels(dataset_json), checked=checked)
        check_resampling(case.name, images, plans_manager, configuration_manager)
        arrays = self.run_arrays(images.data, seg, images.available, images.properties, plans_manager,
                                 configuration_manager, dataset_json)
        return arrays, images

    def save_raw_case(self, case: RawCase, folder: str, plans_manager: PlansManager,
                      configuration_manager: ConfigurationManager, dataset_json: dict,
                      blank_is_missing: bool = False, checked: bool = False,
                      notes: dict | None = None) -> tuple[Present, list[str]]:
        """Preprocesses one training case into `folder`, in nnU-Net's files; it is listed only once it is whole.

        `checked`: the fingerprint read these files before and they did not change (see read_case). `notes`: what else is
        kept in the case's properties.

        Returns:
            Which modalities the case has, and the names of its blank ones.
        """
        if case.label is None:
            raise NnmissError(f"case {case.name} has no label file: a training case needs one")
        (data, seg, properties), images = self.run_raw_case(case, plans_manager, configuration_manager, dataset_json,
                                                            blank_is_missing, checked)
        properties.update({**(notes or {}), BLANK: images.blank})
        seg = seg.astype(np.int16, copy=False)
        partial = os.path.join(folder, PARTIAL)
        os.makedirs(partial, exist_ok=True)
        patch_size = tuple(configuration_manager.patch_size)
        blocks, chunks = comp_blosc2_params(data.shape, patch_size, data.itemsize)
        blocks_seg, chunks_seg = comp_blosc2_params(seg.shape, patch_size, seg.itemsize)
        with naming_full_disk(os.path.join(folder, f"{case.name}.b2nd")):
            nnUNetDatasetBlosc2.save_case(data, seg, properties, os.path.join(partial, case.name), chunks=chunks,
                                          blocks=blocks, chunks_seg=chunks_seg, blocks_seg=blocks_seg)
            publish_case(Path(partial), Path(folder), case.name)
        return images.available, images.blank

    def run(self, dataset_name_or_id: int | str, configuration_name: str, plans_identifier: str,
            num_processes: int) -> dict[str, str]:
        """Preprocesses every training case of one configuration, as nnU-Net's own `run` is called.

        Returns:
            Bad case -> why it failed; the good ones are done. Raises NnmissError when nothing can be done at all.
        """
        from nnmiss.preprocessing.preprocess_dataset import preprocess_configuration  # it uses this class

        return preprocess_configuration(dataset_name_or_id, configuration_name, plans_identifier, num_processes,
                                        preprocessor=self)


def publish_case(partial: Path, folder: Path, name: str) -> None:
    """Moves a finished case into place; last the file by which nnU-Net lists cases.

    Raises OSError and RuntimeError where the files that were written are not whole, as on a full disk.
    """
    endings = ("_seg.b2nd", ".pkl", ".b2nd")
    for file in (partial / f"{name}{ending}" for ending in endings):
        with open(file, "rb") as written:  # on the disk before the names are: a power cut leaves whole cases only
            os.fsync(written.fileno())
        if file.suffix == ".b2nd":
            blosc2.open(urlpath=str(file), mode="r")
    for ending in endings:
        os.replace(partial / f"{name}{ending}", folder / f"{name}{ending}")


@lru_cache(maxsize=1)
def _preprocessor() -> MissingModalityPreprocessor:
    return MissingModalityPreprocessor()


def preprocess_case(case: RawCase, plans_manager: PlansManager, configuration_manager: ConfigurationManager,
                    dataset_json: dict, blank_is_missing: bool = False) -> Preprocessed:
    """Reads and preprocesses one case from its files: see MissingModalityPreprocessor.run_raw_case.

    Returns:
        data (M, *spatial) float32 with absent channels 0, seg (the nonzero mask without a label), properties.
    """
    return _preprocessor().run_raw_case(case, plans_manager, configuration_manager, dataset_json, blank_is_missing)[0]


def preprocess_arrays(images: np.ndarray, available: Present, properties: dict, plans_manager: PlansManager,
                      configuration_manager: ConfigurationManager, dataset_json: dict) -> Preprocessed:
    """Preprocesses the available channels (A, *spatial) of a case without a label: see run_arrays."""
    if images.shape[0] != sum(available):
        raise NnmissError(f"{images.shape[0]} image channels were given, but `available` {list(available)} has "
                          f"{sum(available)}: pass exactly the available channels, in channel order")
    return _preprocessor().run_arrays(images, None, available, properties, plans_manager, configuration_manager,
                                      dataset_json)
