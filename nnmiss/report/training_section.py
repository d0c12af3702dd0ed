"""How the networks were trained: curves, weights over training, settings; where a file is absent, a sentence says so."""
from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import pandas as pd

from nnmiss.atomic_files import read_json
from nnmiss.errors import NnmissError
from nnmiss.report.dataset_files import FOLDS_SHOWN
from nnmiss.report.drawing import figure_html
from nnmiss.report.html_text import Section, bullets, cell, count, folded, head, number, paragraph, table, tag
from nnmiss.report.training_curves import curves_figure, read_stages, table_figure

TABLES = {
    "importance_weights": "Importance weight of every modality over the training, normalised.",
    "elections": "Dice of every modality alone at each election of teachers; the highest one of a panel is the teacher.",
    "gate_weights": "The gate's mean weight of every modality on validation batches.",
    "features": "Features of the held-out batch before each update of the weights.",
}
LARGEST_IMAGE = 1_500_000  # bytes of a progress.png that is put into the page


def training_section(trainings: dict[str, list[Path]], missing: list[str]) -> Section:
    """A part per trained fold, with the first few folds of each model, and what was not found."""
    parts, place, absent = [], 0, list(missing)
    for name, folds in trainings.items():
        for fold in folds[:FOLDS_SHOWN]:
            title = name if fold.name.replace("_", " ") in name or fold.name in name else f"{name}, {fold.name}"
            parts.append(f"<h3>{escape(title)}</h3>\n" + fold_body(fold, f"training{place}", absent))
            place += 1
        if len(folds) > FOLDS_SHOWN:
            parts.append(paragraph(f"{name} has {len(folds)} folds; the first {FOLDS_SHOWN} are shown.", "note"))
    return Section("training", "Training", "".join(parts) + (bullets(absent) if absent else ""), tuple(absent))


def fold_body(fold: Path, prefix: str, absent: list[str]) -> str:
    """Curves, tables over iterations and settings of one fold_K; `absent` gets a sentence for each that is not there."""
    body = _curves(fold, prefix, absent)
    for name, caption in TABLES.items():
        if (fold / f"{name}.csv").is_file():
            body += _table(fold / f"{name}.csv", name, f"{prefix}-{name.replace('_', '-')}", caption, absent)
    return body + _settings(fold, absent)


def _curves(fold: Path, prefix: str, absent: list[str]) -> str:
    try:
        stages = read_stages(fold)
    except NnmissError as error:
        image = fold / "progress.png"
        if image.is_file() and image.stat().st_size <= LARGEST_IMAGE:
            data = base64.b64encode(image.read_bytes()).decode("ascii")
            return (f'<figure><img class="picture" src="data:image/png;base64,{data}" alt="Training curves as the trainer '
                    'drew them: losses with pseudo Dice, parts of the loss, learning rate, seconds per epoch."><figcaption>'
                    "The trainer's own figure; no checkpoint to draw it from was found.</figcaption></figure>\n")
        absent.append(f"No training curves: {error}.")
        return ""
    epochs = sum(stage.epochs for stage in stages)
    seconds = [s for stage in stages for s in stage.curves["seconds"]]
    took = f", {number(sum(seconds) / 60)} minutes" if seconds else ""
    caption = f"{count(epochs, 'epoch')}{took}. The pseudo Dice is that of validation patches, not of whole cases."
    return figure_html(curves_figure(stages), f"{prefix}-curves", "Training and validation loss, pseudo Dice and parts of "
                       "the loss over the epochs.", caption)


def _table(path: Path, name: str, prefix: str, caption: str, absent: list[str]) -> str:
    try:
        frame = pd.read_csv(path)
        if len(frame.columns) < 2 or frame.empty:
            raise ValueError("it has no rows")
        frame = frame.apply(pd.to_numeric)
    except (OSError, ValueError) as error:
        absent.append(f"{path} cannot be read ({error}).")
        return ""
    return figure_html(table_figure(frame, name), prefix, f"{caption} A line per column of {path.name}.", caption)


def _settings(fold: Path, absent: list[str]) -> str:
    """run.json as a table, the settings of stages folded."""
    try:
        run = read_json(fold / "run.json", "run.json", ("method",))
    except NnmissError as error:
        absent.append(f"Settings are not shown: {error}.")
        return ""
    versions = run.get("versions") if isinstance(run.get("versions"), dict) else {}
    facts = {"method": run.get("method"), "preset": run.get("preset"), "seed": run.get("seed"), "fold": run.get("fold"),
             "simulated missing": _missing(run.get("missing")), "device": run.get("device"),
             "pretrained weights": run.get("pretrained_weights") or "none",
             "versions": ", ".join(f"{name} {version}" for name, version in versions.items())}
    lines = "".join(f"<div>{tag('dt', escape(key))}{tag('dd', escape(str(value)))}</div>" for key, value in facts.items()
                    if value not in (None, ""))
    stages = run.get("settings") if isinstance(run.get("settings"), dict) else {}
    stages = {name: s for name, s in stages.items() if isinstance(s, dict)}
    names = list(dict.fromkeys(key for settings in stages.values() for key in settings))
    header = [[head("setting"), *(head(f"stage {stage}") for stage in stages)]]
    rows = [[head(key, "row"), *(cell(_value(s[key]) if key in s else "", None) for s in stages.values())] for key in names]
    every = table("Every setting by stage, from run.json.", header, rows, class_="plain")
    return f'<dl class="facts">{lines}</dl>\n' + (folded("All settings", every) if rows else "")


def _missing(content: object) -> str:
    return str(content.get("table") or "yes") if isinstance(content, dict) else "none: every file there is"


def _value(value: object) -> str:
    return "yes" if value is True else "no" if value is False else "none" if value is None else str(value)
