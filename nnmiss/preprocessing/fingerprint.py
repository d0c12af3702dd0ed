"""nnU-Net's data set fingerprint for cases with holes, and availability.json, from one reading of all voxels."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

from nnmiss.atomic_files import read_json, write_text
from nnmiss.availability import Present, modality_names
from nnmiss.errors import NnmissError
from nnmiss.preprocessing.availability_table import why_outdated, write_availability
from nnmiss.preprocessing.case_pool import CaseResults, run_on_cases
from nnmiss.preprocessing.choose_reader import choose_reader
from nnmiss.preprocessing.dataset_folders import known_labels, require_folder
from nnmiss.preprocessing.integrity import raise_problems
from nnmiss.preprocessing.intensity_statistics import ForegroundSample, channel_statistics, sample_foreground
from nnmiss.preprocessing.raw_dataset import ExplicitCases, RawCase
from nnmiss.preprocessing.read_case import read_case, read_label


@dataclass
class CaseFingerprint:
    """What the fingerprint needs of one case."""

    shape_after_crop: tuple[int, ...]
    spacing: list[float]
    foreground: ForegroundSample
    relative_size_after_cropping: float
    available: Present
    blank: list[str]


def analyze_raw_case(case: RawCase, modalities: list[str], reader_class: type[BaseReaderWriter], labels: list[int],
                     num_samples: int, blank_is_missing: bool, thorough: bool) -> CaseFingerprint:
    """Reads and checks one case and measures its available channels. Raises NnmissError as read_case, read_label."""
    images = read_case(case, modalities, reader_class, blank_is_missing, thorough)
    seg = read_label(case, reader_class, images, labels, thorough)
    data, seg, _ = crop_to_nonzero(images.data, seg)
    channels = [c for c, has in enumerate(images.available) if has]
    shape_before, shape_after = images.data.shape[1:], data.shape[1:]
    return CaseFingerprint(shape_after, images.properties["spacing"],
                           sample_foreground(seg, data, channels, num_samples),
                           np.prod(shape_after) / np.prod(shape_before), images.available, images.blank)


class MissingModalityFingerprintExtractor(ExplicitCases, DatasetFingerprintExtractor):
    """Statistics of each channel over the cases that have it; without holes the file is byte for byte nnU-Net's."""

    def __init__(self, dataset_name_or_id: str | int, num_processes: int = 8, verbose: bool = False,
                 blank_is_missing: bool = False, thorough: bool = False):
        """`blank_is_missing` and `thorough` as in read_case; `num_processes` 0 or 1 runs in this process.

        As in nnU-Net, the attribute `num_foreground_voxels_for_intensitystats` says how many values are drawn a
        channel; 10^8 costs some 3 s a channel however small the data set is.
        """
        super().__init__(dataset_name_or_id, num_processes, verbose)
        self.blank_is_missing = blank_is_missing
        self.thorough = thorough
        self.modalities = modality_names(self.dataset_json)

    @property
    def folder(self) -> Path:
        """The data set's folder in nnUNet_preprocessed."""
        return require_folder("nnUNet_preprocessed") / self.dataset_name

    def why_needed(self) -> str | None:
        """None when the files written earlier still describe the raw data, else the reason in words."""
        return why_outdated(self.folder, self.modalities, self.cases, self.blank_is_missing)

    def run(self, overwrite_existing: bool = False) -> dict:
        """Writes dataset_fingerprint.json and availability.json, unless both are there and still fit.

        Returns:
            The fingerprint.

        Raises:
            NnmissError: naming every bad case; a modality that no case has; no foreground to measure.
        """
        if not overwrite_existing and self.why_needed() is None:
            return read_json(self.folder / "dataset_fingerprint.json", "fingerprint")
        num_samples = int(self.num_foreground_voxels_for_intensitystats // max(1, len(self.cases)))
        results = self._analyze(num_samples)
        raise_problems(list(results.errors.values()), self.dataset_name)
        fingerprint = self._combine(list(results.done.values()), num_samples)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "dataset_fingerprint.json").unlink(missing_ok=True)  # written last, and newer than what it is of
        write_availability(self.folder, self.modalities, {n: c.available for n, c in results.done.items()},
                           {n: c.blank for n, c in results.done.items()}, self.blank_is_missing)
        write_text(self.folder / "dataset_fingerprint.json", json.dumps(fingerprint, sort_keys=True, indent=4))
        return json.loads(json.dumps(fingerprint))

    def _analyze(self, num_samples: int) -> CaseResults:
        reader_class, labels = choose_reader(self.dataset_json, self.cases), known_labels(self.dataset_json)
        common = (self.modalities, reader_class, labels, num_samples, self.blank_is_missing, self.thorough)
        return run_on_cases(analyze_raw_case, {case.name: (case, *common) for case in self.cases}, self.num_processes,
                            "Extracting dataset fingerprint", self.show_progress_bar, self.verbose)

    def _combine(self, cases: list[CaseFingerprint], num_samples: int) -> dict:
        intensities = {}
        for channel, name in enumerate(self.modalities):
            if not any(case.available[channel] for case in cases):
                raise NnmissError(f"{self.dataset_name}: no training case has modality {name} (channel {channel}), or "
                                  "only as blank files: take it out of channel_names in dataset.json")
            statistics = channel_statistics([case.foreground for case in cases], channel, num_samples)
            if statistics is None:
                raise NnmissError(f"{self.dataset_name}: no case with modality {name} (channel {channel}) has any "
                                  "labelled foreground, so its intensities cannot be measured")
            intensities[channel] = statistics
        return {
            "spacings": [case.spacing for case in cases],
            "shapes_after_crop": [case.shape_after_crop for case in cases],
            "foreground_intensity_properties_per_channel": intensities,
            "median_relative_size_after_cropping": np.median([c.relative_size_after_cropping for c in cases], 0),
        }
