"""Made-up evaluations, the report's page of them taken apart, and what holds for every page."""
from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from nnmiss.atomic_files import write_json
from nnmiss.availability import all_subsets, subset_name
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.label_maps import Regions
from nnmiss.evaluation.results import write_results
from nnmiss.evaluation.summary import summarise, without_nan
from nnmiss.report.page import Options, build_page

MODALITIES = ["flair", "t1", "t1ce", "t2"]
REGIONS = {"whole_tumor": (1, 2, 3), "tumor_core": (2, 3), "enhancing_tumor": (3,)}
HOSTILE = ['<script>alert("1")</script>', '"><img src=x onerror=alert(1)>', "a&b'c", r"$\frac{x$ $", "fälle_Ω_日本"]
VOID = {"meta", "img", "input", "br", "hr", "link", "wbr"}


def make_results(folder: Path, cases: int | list[str] = 3, seed: int = 0, name: str | None = None, gaps: bool = False,
                 regions: dict = REGIONS, metrics: tuple = ("dice", "hd95"), sources: dict | None = None) -> dict:
    """An evaluation as nnmiss_evaluate leaves it, of random values; `gaps`: cases lack modalities. Returns the summary."""
    rng, rows = np.random.default_rng(seed), []
    for case in [f"case_{c:04d}" for c in range(cases)] if isinstance(cases, int) else cases:
        base, have = rng.beta(8, 2), rng.random(len(MODALITIES)) < (0.7 if gaps else 1)
        have[0] |= not have.any()
        for subset in all_subsets(len(MODALITIES)):
            if any(shown and not there for shown, there in zip(subset, have)):
                continue
            for region in regions:
                for metric in metrics:
                    value = rng.uniform(1, 30) if metric.endswith("hd95") else np.clip(base + rng.normal(0, 0.1), 0, 1)
                    rows.append((case, subset_name(subset, MODALITIES), region, metric, value))
    results = pd.DataFrame(rows, columns=["case", "subset", "region", "metric", "value"])
    return write_evaluation(folder, results, name or folder.name, MODALITIES, regions, sources)


def write_evaluation(folder: Path, results: pd.DataFrame, name: str, modalities: list[str], regions: dict,
                     sources: dict | None = None) -> dict:
    """results.csv and summary.json of an evaluation, without its figures, which take their time."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(results, [], name, modalities, Regions(regions, frozenset(range(4)), None), Conventions())
    summary.update(sources=sources or {}, notes=[], errors=[])
    write_results(results, folder / "results.csv")
    write_json(folder / "summary.json", without_nan(summary))
    return summary


@dataclass
class Parsed(HTMLParser):
    """A page taken apart: open elements at every moment, ids, references, tables as rows of texts, scripts."""

    open: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    references: list[tuple[str, str]] = field(default_factory=list)
    links: list[dict] = field(default_factory=list)
    tags: list[tuple[str, dict]] = field(default_factory=list)
    tables: list[dict] = field(default_factory=list)
    text: str = ""

    def __post_init__(self):
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attrs):
        self.note(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append({"class": dict(attrs).get("class"), "caption": "", "rows": []})
        elif tag == "tr":
            self.tables[-1]["rows"].append([])
        elif tag in ("td", "th"):
            self.tables[-1]["rows"][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.note(tag, dict(attrs))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text += data
        if "caption" in self.open:
            self.tables[-1]["caption"] += data
        elif self.open and ("td" in self.open or "th" in self.open):
            self.tables[-1]["rows"][-1][-1] += data

    def note(self, tag, attributes):
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.references += [(tag, attributes[k]) for k in ("href", "src", "xlink:href", "action") if k in attributes]
        self.links += [attributes] if tag == "a" else []


def parse(html: str) -> Parsed:
    parsed = Parsed()
    parsed.feed(html)
    parsed.close()
    assert parsed.open == [], f"never closed: {parsed.open}"
    return parsed


def check_page(html: str) -> Parsed:
    """What holds for every page."""
    parsed = parse(html)
    assert html.startswith("<!DOCTYPE html>") and '<meta charset="utf-8">' in html
    assert len(parsed.ids) == len(set(parsed.ids)), sorted(i for i in parsed.ids if parsed.ids.count(i) > 1)
    for tag, target in parsed.references:
        assert target.startswith(("#", "data:")), f"{tag} refers to {target}"
        if target.startswith("#"):
            assert target[1:] in parsed.ids, f"{target} leads nowhere"
    assert not re.search(r"url\((?!#|['\"]?data:)|@import", html)
    for reference in re.findall(r"url\(#([^)]+)\)", html):
        assert reference in parsed.ids
    assert all(a.get("scope") in ("col", "row", "colgroup", "rowgroup") for tag, a in parsed.tags if tag == "th")
    assert all(a.get("alt") for tag, a in parsed.tags if tag == "img")
    assert all(a.get("aria-label") for tag, a in parsed.tags if tag == "svg")
    assert all(table["caption"].strip() for table in parsed.tables)
    return parsed


def page_of(*results: Path | str, **options):
    options = {"viewer": False, **options}
    return build_page(Options([str(r) for r in results], **options))


def subset_rows(parsed: Parsed, place: int = 0) -> dict[str, list[str]]:
    """Subset -> texts of its cells after the circles, of the place-th subset table."""
    table = [t for t in parsed.tables if t["class"] == "subsets"][place]
    return {row[0].split(" ", 1)[1]: row[1 + len(MODALITIES):] for row in table["rows"][2:] if row[0][0].isdigit()}


def make_fold(model: Path, stages: tuple = ("warmup", "missing"), fold: str = "fold_0") -> Path:
    """fold_K as training leaves it: checkpoints of all stages, run.json, importance weights."""
    folder = model / fold
    for i, stage in enumerate(stages):
        place = folder if i == len(stages) - 1 else folder / f"stage_{stage}"
        place.mkdir(parents=True, exist_ok=True)
        epochs = [float(e) for e in range(4)]
        torch.save({"network_weights": {}, "nnmiss": {"stage": stage, "progress": {"parts": {
            "loss": epochs, "task": epochs, "distillation": epochs}, "tables": {}}}, "logging": {
            "train_losses": epochs, "val_losses": epochs, "mean_fg_dice": [0.1] * 4, "ema_fg_dice": [0.1] * 4,
            "lrs": epochs, "epoch_start_timestamps": [100.0 * i + e for e in range(4)],
            "epoch_end_timestamps": [100.0 * i + e + 0.5 for e in range(4)], "dice_per_class_or_region": [[0.1]] * 4}},
            place / "checkpoint_final.pth")
    (folder / "run.json").write_text(json.dumps({
        "method": "metakd", "preset": "paper", "seed": 3, "fold": 0, "missing": None, "device": "cpu",
        "settings": {stage: {"num_epochs": 4, "batch_size": 2} for stage in stages}, "versions": {"torch": "2.9"}}))
    pd.DataFrame({"iteration": [0, 5], **{m: [0.2, 0.3] for m in MODALITIES}}).to_csv(
        folder / "importance_weights.csv", index=False)
    return folder
