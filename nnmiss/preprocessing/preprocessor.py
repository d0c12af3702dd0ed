"""nnU-Net's preprocessor for a case with holes: the available channels as nnU-Net would, the absent ones exactly zero."""
from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnmiss.availability import Present, modality_names
from nnmiss.errors import NnmissError
from nnmiss.preprocessing.dataset_folders import known_labels
from nnmiss.preprocessing.raw_dataset import RawCase
from nnmiss.preprocessing.read_case import CaseImages, read_case, read_label

Preprocessed = tuple[np.ndarray, np.ndarray, dict]  # data (M, *spatial) float32, seg (1, *spatial), properties
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
        arrays = self.run_arrays(images.data, seg, images.available, images.properties, plans_manager,
                                 configuration_manager, dataset_json)
        return arrays, images

    def save_raw_case(self, case: RawCase, folder: str, plans_manager: PlansManager,
                      configuration_manager: ConfigurationManager, dataset_json: dict,
                      blank_is_missing: bool = False, checked: bool = False) -> tuple[Present, list[str]]:
        """Preprocesses one training case into `folder`, in nnU-Net's files; it is listed only once it is whole.

        `checked`: the fingerprint read these files before and they did not change (see read_case).

        Returns:
            Which modalities the case has, and the names of its blank ones.
        """
        if case.label is None:
            raise NnmissError(f"case {case.name} has no label file: a training case needs one")
        (data, seg, properties), images = self.run_raw_case(case, plans_manager, configuration_manager, dataset_json,
                                                            blank_is_missing, checked)
        seg = seg.astype(np.int16, copy=False)
        partial = os.path.join(folder, PARTIAL)
        os.makedirs(partial, exist_ok=True)
        patch_size = tuple(configuration_manager.patch_size)
        blocks, chunks = comp_blosc2_params(data.shape, patch_size, data.itemsize)
        blocks_seg, chunks_seg = comp_blosc2_params(seg.shape, patch_size, seg.itemsize)
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
    """Moves a finished case into place; last the file by which nnU-Net lists cases."""
    for ending in ("_seg.b2nd", ".pkl", ".b2nd"):
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
