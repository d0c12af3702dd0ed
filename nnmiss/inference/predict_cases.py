"""Cases in, segmentations out: preprocessing and export run beside the network, and a bad case stops only itself."""
from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nnmiss import __version__
from nnmiss.atomic_files import replacing_together, write_json
from nnmiss.availability import Present, modality_names, subset_name
from nnmiss.bounded_threads import in_threads
from nnmiss.errors import DiskFullError, NnmissError
from nnmiss.inference.expected_dice import expected_dice, read_validation_dice
from nnmiss.inference.export import export_prediction
from nnmiss.inference.gate_weights import gate_weights
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.inference.reconstruction import Reconstructions
from nnmiss.inference.wanted import Wanted
from nnmiss.preprocessing.preprocessor import MissingModalityPreprocessor
from nnmiss.preprocessing.raw_dataset import RawCase


@dataclass(frozen=True)
class Output:
    """Where predictions go and what is written.

    Attributes:
        folder: output folder; subsets get sub-folders.
        save_probabilities, save_uncertainty: see nnmiss.inference.export.export_prediction.
        keep_existing: do not predict again what is already there.
        reconstructions: also write the modalities that a subset lacks.
    """

    folder: Path
    save_probabilities: bool = False
    save_uncertainty: bool = False
    keep_existing: bool = False
    reconstructions: Reconstructions | None = None


def predict_cases(predictor: MissingModalityPredictor, cases: list[RawCase], wanted: Wanted, output: Output,
                  num_export_threads: int = 1, num_loading_threads: int = 1) -> dict[str, str]:
    """Predicts raw cases with what they have or what is wanted of them.

    Returns:
        Case -> message, for those that failed; the others are finished. Writes <output>/[<subset>/]CASE<ending> and
        CASE.json.
    """
    block = predictor.configuration_manager.configuration.get("nnmiss", {})
    blank_is_missing = bool(block.get("blank_is_missing", False))

    def load(case: RawCase):
        (data, _, properties), images = MissingModalityPreprocessor().run_raw_case(
            case, predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json, blank_is_missing)
        return torch.from_numpy(data), properties, images.available, _blank_notes(case, images.blank)

    modalities = modality_names(predictor.dataset_json)
    use = "left out, as the plan says" if blank_is_missing else "used, as training does without --blank_is_missing"

    def _blank_notes(case: RawCase, blank: list[str]) -> list[str]:
        return [f"warning: case {case.name}: {case.files[modalities.index(name)]} is all zero or constant; it is {use}"
                for name in blank]

    writer = CaseWriter(predictor, output, num_export_threads)
    with writer, closing(in_threads(load, cases, num_loading_threads)) as loading:
        for case, loaded in tqdm(loading, total=len(cases), desc="cases", disable=not predictor.allow_tqdm):
            try:
                data, properties, available, blank = loaded.result()
                plan, notes = wanted.of_case(case.name, available, writer.modalities)
                for note in [*blank, *notes]:
                    tqdm.write(note)
                writer.predict(case.name, data, properties, plan)
            except NnmissError as error:
                writer.failed(case.name, str(error))
            except Exception as error:  # whatever is wrong with this case, the others still finish
                writer.failed(case.name, f"{type(error).__name__}: {error}")
    return writer.failures


class CaseWriter:
    """Predicts subsets of preprocessed images and writes them in background threads, at most a few waiting."""

    def __init__(self, predictor: MissingModalityPredictor, output: Output, num_threads: int = 1):
        self.predictor, self.output = predictor, output
        self.modalities = modality_names(predictor.dataset_json)
        self.failures: dict[str, str] = {}
        self._num_threads = max(1, num_threads)
        self._waiting: list[tuple[str, Future]] = []
        folder = getattr(predictor, "model_folder", None)
        self._dice = read_validation_dice(folder) if folder else None

    def __enter__(self):
        self._pool = ThreadPoolExecutor(self._num_threads)
        return self

    def __exit__(self, *error) -> None:
        if error[0] is None:
            self._collect(at_most=0)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def failed(self, case: str, message: str) -> None:
        """Remembers and prints that a case failed."""
        self.failures[case] = message if case in message else f"case {case}: {message}"
        tqdm.write(f"error: {self.failures[case]}")

    def predict(self, case: str, data: torch.Tensor, properties: dict, plan: dict[str, Present]) -> None:
        """Predicts a case's subsets; `plan` maps sub-folders of the output to subsets."""
        ending = self.predictor.dataset_json["file_ending"]
        folders = {present: self.output.folder / name for name, present in plan.items()}
        if self.output.keep_existing:
            names = [f"{case}{ending}", *([f"{case}.npz"] if self.output.save_probabilities else [])]
            folders = {p: f for p, f in folders.items() if not all((f / name).is_file() for name in names)}
        weights = gate_weights(self.predictor, data, list(folders))  # {} where there is no gate
        for present, logits in self.predictor.predict_subsets(data, list(folders)) if folders else ():
            missing = self.output.reconstructions.predict(data, present) if self.output.reconstructions else None
            self._collect(at_most=self._num_threads)
            future = self._pool.submit(self._write, case, logits, properties, present, folders[present],
                                       {"gate_weights": weights[present]} if weights else {}, missing)
            self._waiting.append((case, future))

    def _write(self, case: str, logits, properties: dict, present: Present, folder: Path,
               extra: dict, missing: np.ndarray | None) -> None:
        ending = self.predictor.dataset_json["file_ending"]
        with replacing_together(folder, f"{case}{ending}", (f"{case}.json", f"{case}.npz", f"{case}.pkl")) as inside:
            write_json(inside / f"{case}.json", {**self._describe(case, properties, present), **extra})
            if missing is not None:
                foreground = np.asarray(self.predictor.label_manager.convert_logits_to_segmentation(logits)) > 0
                self.output.reconstructions.write(missing, foreground, case, properties, present, inside)
            export_prediction(logits, properties, self.predictor, inside / case, self.output.save_probabilities,
                              self.output.save_uncertainty)

    def _describe(self, case: str, properties: dict, present: Present) -> dict:
        """What stands in CASE.json."""
        names = [m for m, shown in zip(self.modalities, present) if shown]
        predictor = self.predictor
        model = {"trainer": predictor.trainer_name, "plans": predictor.plans_manager.plans_name}
        if getattr(predictor, "model_folder", None):
            model.update(folder=predictor.model_folder.name, folds=predictor.folds, checkpoint=predictor.checkpoint_name)
        return {
            "case": case,
            "subset": subset_name(present, self.modalities),
            "modalities_used": names,
            "modalities_available": [m for m, a in zip(self.modalities, properties["nnmiss_available"]) if a],
            "model": model,
            "expected_dice": expected_dice(self._dice, present, self.modalities),
            "nnmiss_version": __version__,
        }

    def _collect(self, at_most: int) -> None:
        """Waits until at most that many exports are under way; failed ones are named."""
        while len(self._waiting) > at_most:
            case, future = self._waiting.pop(0)
            try:
                future.result()
            except Exception as error:  # a full disk, say: named, and the other cases go on
                self.failed(case, str(error) if isinstance(error, DiskFullError)
                            else f"could not be written: {type(error).__name__}: {error}")
