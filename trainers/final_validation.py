"""The validation after training: every reported subset of the fold's validation cases, predicted and evaluated."""
from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
from tqdm import tqdm

from nnmiss import __version__
from nnmiss.atomic_files import read_json, remove_leftovers, writable_folder, write_json
from nnmiss.availability import Present, subset_name
from nnmiss.errors import NnmissError
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.evaluate import evaluate_folder
from nnmiss.export.colour_tables import write_colour_tables
from nnmiss.inference.gate_weights import write_gate_weights
from nnmiss.inference.predict_cases import CaseWriter, Output
from nnmiss.inference.predictor import MissingModalityPredictor
from nnmiss.inference.wanted import Wanted

from .processes import by_first


def validate_all_subsets(trainer, save_probabilities: bool = False) -> None:
    """Predicts and evaluates the validation cases of a trainer's fold; results in <fold>/validation.

    Each subset has a sub-folder with its segmentations; results.csv, summary.json, tables and figures stand beside them.
    Subsets that a case does not have are left out, so rows may count fewer cases. Up to five modalities all subsets
    are predicted, beyond that single modalities, all but one, and all; a network for one subset only that.

    What an interrupted validation of the same weights has predicted is kept.

    Raises:
        NnmissError: no validation case has any of the subsets in full, or cases failed.
    """
    trainer.set_deep_supervision_enabled(False)
    predictor = MissingModalityPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=trainer.validation_mirroring,
                                         device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(trainer.validated_network, trainer.plans_manager, trainer.configuration_manager, None,
                                    trainer.dataset_json, type(trainer).__name__,
                                    trainer.inference_allowed_mirroring_axes)
    folder = Path(trainer.output_folder) / "validation"
    subsets = Wanted(subsets=tuple(trainer.reported_subsets()))
    cases = cases_with_any(subsets.subsets, trainer)
    if trainer.is_ddp:
        cases = cases[trainer.local_rank :: dist.get_world_size()]
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, list(cases))
    print(f"final validation: {len(cases)} case(s), up to {len(subsets.subsets)} subsets each")
    keep = by_first(lambda: continues(folder, trainer, save_probabilities))
    with CaseWriter(predictor, Output(folder, save_probabilities, keep_existing=keep)) as writer:
        for case in tqdm(dataset.identifiers, desc="cases", disable=not trainer.show_progress):
            data, _, _, properties = dataset.load_case(case)
            properties["nnmiss_available"] = list(trainer.files[case])
            plan, notes = subsets.of_case(case, trainer.files[case], trainer.modalities)
            for note in notes:
                trainer.print_to_log_file(note)
            writer.predict(case, torch.from_numpy(data[:]), properties, plan)
    failures = writer.failures
    if trainer.is_ddp:
        everywhere: list = [None] * dist.get_world_size()
        dist.all_gather_object(everywhere, failures)
        failures = {case: message for part in everywhere for case, message in part.items()}
    if failures:
        raise NnmissError(f"the final validation failed for {len(failures)} case(s): {next(iter(failures.values()))}. Mend "
                          "that and run the same command again")
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    if trainer.local_rank == 0:
        report(trainer, folder)


def continues(folder: Path, trainer, save_probabilities: bool) -> bool:
    """Whether the predictions in `folder` are of these weights, so that they can stay; if not, they are removed.

    The record of that, .made_of (JSON), is written when no others are left.
    """
    weights = hashlib.sha256()
    for name, value in trainer.validated_network.state_dict().items():
        weights.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    record = {"weights_sha256": weights.hexdigest(), "mirroring": trainer.validation_mirroring,
              "probabilities": save_probabilities, "nnmiss": __version__}
    path = writable_folder(folder) / ".made_of"
    for place in (folder, *(p for p in folder.iterdir() if p.is_dir())):
        remove_leftovers(place, nobody_writes=True)
    try:
        if read_json(path, "record") == record:
            return True
    except NnmissError:  # there is none, or a damaged one
        pass
    for old in folder.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    write_json(path, record)
    return False


def cases_with_any(subsets: tuple[Present, ...], trainer) -> list[str]:
    """The fold's validation cases that have at least one of the subsets in full. Raises NnmissError for none."""
    _, cases = trainer.do_split()
    kept = [case for case in cases if any(not any(w and not a for w, a in zip(s, trainer.files[case])) for s in subsets)]
    if not kept:
        raise NnmissError(f"none of the {len(cases)} validation case(s) of fold {trainer.fold} has "
                          f"{subset_name(subsets[0], trainer.modalities)} in full: validate another fold, or train it with "
                          "--no_val")
    return kept


def report(trainer, folder: Path) -> None:
    """Evaluates the predictions in `folder`, writes the tables and prints the mean Dice of the full set and overall."""
    truth = Path(trainer.preprocessed_dataset_folder_base) / "gt_segmentations"
    write_colour_tables(folder, trainer.dataset_json)
    results = evaluate_folder(truth, folder, trainer.dataset_json, folder, Conventions())
    write_gate_weights(folder)
    dice = results[results["metric"] == "dice"]
    full = dice[dice["subset"] == subset_name((True,) * len(trainer.modalities), trainer.modalities)]
    trainer.print_to_log_file(f"mean Dice over subsets {dice['value'].mean():.4f}, full set {full['value'].mean():.4f}")
    complete = f"{full['value'].mean():.4f} with every modality" if len(full) else "no validation case is complete"
    alone = dice["subset"].iloc[0] if dice["subset"].nunique() == 1 else ""
    shown = f"with {alone}" if alone else f"over all subsets, {complete}"
    print(f"validation Dice: {dice['value'].mean():.4f} {shown}\nresults: {folder / 'table.md'}")
