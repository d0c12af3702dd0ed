"""What a classification training ends with: predictions of every reported subset, and their evaluation."""
from __future__ import annotations

from pathlib import Path

import torch

from nnmiss.atomic_files import write_json
from nnmiss.availability import AVAILABLE
from nnmiss.errors import NnmissError, shortened
from nnmiss.evaluation.classification.conventions import ALL
from nnmiss.evaluation.classification.evaluate import evaluate_predictions
from nnmiss.evaluation.classification.truth import Truth
from nnmiss.inference.classify_samples import subset_probabilities, write_subsets

from .classification_validation import named


def predict_and_evaluate(trainer) -> None:
    """Predictions and results of the fold's validation samples in fold_K/validation, of its test samples in fold_K/test.

    Each subset has a sub-folder with predictions.csv; `available` is everything a sample has. A sample that lacks some of
    a subset is predicted with the rest, and is not counted there. Test samples are only ever seen here.

    Raises NnmissError when there is no sample to validate.
    """
    parts = {"test": trainer.test, "validation": trainer.validation}  # validation last: its summary says all is done
    if not any(parts.values()):
        raise NnmissError(f"fold {trainer.fold} has neither validation nor test samples: train it with --no_val")
    for part, ids in parts.items():
        if ids:
            predict_part(trainer, Path(trainer.fold_folder) / part, ids)


def predict_part(trainer, folder: Path, ids: list[str]) -> None:
    """Predicts and evaluates some samples; says where the results are."""
    rows = trainer.rows_of_ids(ids)
    subsets = named(trainer.reported_subsets(), trainer.modalities)
    values = subset_probabilities(trainer.inference_network, trainer.samples, rows, torch.tensor(list(subsets.values())),
                                  trainer.task, trainer.device)
    folder.mkdir(parents=True, exist_ok=True)
    written = write_subsets(folder, ids, values, subsets, trainer.samples.available[rows], trainer.modalities,
                            trainer.task, trainer.classes)
    print(f"{folder.name}: {len(ids)} sample(s), {sum(n > 0 for n in written.values())} subset(s)")
    warn_of_silence([name for name, predicted in zip(subsets, values) if same_for_all(predicted)], trainer.weight_decay)
    truth = Truth.of_samples(trainer.samples, rows, trainer.task, trainer.classes, trainer.description.label_groups,
                             trainer.description.name)
    if not truth.labelled.any():
        note = f"no {folder.name} sample has a label, so there are predictions but no results"
        (folder / "results.csv").unlink(missing_ok=True)
        write_json(folder / "summary.json", {"method": trainer.method, "n": len(ids), "notes": [note]})
        print(f"note: {note}")
        return
    results = evaluate_predictions(truth, folder, name=trainer.method, figures=trainer.figures)
    print(f"{folder.name}: {headline(results, trainer)}\nresults: {folder / 'table.md'}")


def same_for_all(probabilities: torch.Tensor) -> bool:
    """Whether (n, classes) of at least two samples (rows of NaN have none) are the same but for rounding."""
    given = probabilities[~probabilities.isnan().any(-1)]
    return len(given) > 1 and bool((given.amax(0) - given.amin(0) < 1e-6).all())


def warn_of_silence(subsets: list[str], weight_decay: float) -> None:
    """Says with which subsets nothing is told apart, and what to try."""
    if subsets:
        print(f"warning: with {shortened(subsets, 5)} alone the network gives every sample the same answer. Either "
              f"weight_decay (here {weight_decay:g}) took away what it had learned, or distillation made its features "
              "equal: try a smaller weight_decay or alpha")


def headline(results, trainer) -> str:
    """'accuracy 0.912 with everything available, 0.874 mean over 3 subsets'."""
    metric = trainer.select_score if trainer.select_score != "loss" else "accuracy"
    chosen = results[(results["label"] == ALL) & (results["metric"] == metric)].set_index("subset")["value"].dropna()
    of_subsets = chosen.drop(AVAILABLE, errors="ignore")
    words = [f"{chosen[AVAILABLE]:.4f} with what is available"] if AVAILABLE in chosen else []
    words += [f"{of_subsets.mean():.4f} mean over {len(of_subsets)} subset(s)"] if len(of_subsets) else []
    return f"{metric} {', '.join(words) or 'undefined: one class only'}"
