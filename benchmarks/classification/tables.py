"""Prints the tables of documentation/reference/classification_results.md and draws its curves, from run.sh's studies.

Usage: python tables.py FOLDER [-o FIGURES]. Reads FOLDER/STUDY/benchmark.csv, which `nnmiss_benchmark --collect` writes.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nnmiss.benchmark.classification import t_interval

PAPER_AUDIO = {"audio_05": 93.56, "audio_10": 94.22, "audio_15": 94.89, "audio_20": 95.11}  # MetaKD, Table 3a
PAPER_VISUAL = {"visual_05": 84.67, "visual_10": 85.56, "visual_15": 86.89, "visual_20": 88.44}  # Table 3b


def read(folder: Path, study: str) -> pd.DataFrame | None:
    """Rows over all classes of a study, values in per cent; None where it was not run."""
    path = folder / study / "benchmark.csv"
    if not path.is_file():
        return None
    rows = pd.read_csv(path, dtype={"fold": str})
    return rows[rows["label"] == "all"].assign(value=lambda t: 100 * t["value"])


def by_seed(rows: pd.DataFrame, variant: str, missing: str, subset: str, metric: str = "accuracy") -> pd.Series:
    """Value of each seed, the mean over its folds."""
    chosen = rows[(rows["variant"] == variant) & (rows["missing"] == missing) & (rows["subset"] == subset)
                  & (rows["metric"] == metric)]
    return chosen.groupby("seed")["value"].mean()


def cell(values: pd.Series, digits: int = 2) -> str:
    """'92.15 ± 0.64', with the number of seeds where they are fewer than five."""
    if values.empty:
        return "-"
    few = f" ({len(values)})" if len(values) < 5 else ""
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}{few}"


def difference(ours: pd.Series, other: pd.Series) -> str:
    """Paired over seeds: mean, 95 % interval, p."""
    paired = (ours - other).dropna()
    low, high, p = t_interval(paired.to_numpy())
    return f"{paired.mean():+.2f} ({low:+.2f}, {high:+.2f}), p {p:.3f}"


def rates_table(rows: pd.DataFrame, alone: str, subset: str, paper: dict[str, float]) -> None:
    """Rows: missing tables. Columns: methods, on one modality at test; then MetaKD minus the single-modality model."""
    methods = [v for v in rows["variant"].unique() if (rows[rows["variant"] == v]["missing"] != "full").any()]
    base = by_seed(rows, alone, "full", subset)
    print(f"\n{alone}: {cell(base)}")
    print("| rate | " + " | ".join(methods) + f" | metakd minus {alone} | paper |")
    print("|---" + "|--:" * (len(methods) + 2) + "|")
    for missing in sorted(set(rows["missing"]) - {"full"}):
        values = {m: by_seed(rows, m, missing, subset) for m in methods}
        print(f"| {missing} | " + " | ".join(cell(values[m]) for m in methods)
              + f" | {difference(values['metakd'], base)} | {paper.get(missing, '-')} |")


def variants_table(rows: pd.DataFrame, subsets: list[str], metric: str, reference: str) -> None:
    """Rows: variants. Columns: subsets, then the difference to the reference on each."""
    print("| variant | " + " | ".join(subsets) + " | " + " | ".join(f"{s} minus {reference}" for s in subsets) + " |")
    print("|---" + "|--:" * (2 * len(subsets)) + "|")
    for variant in rows["variant"].unique():
        missing = rows[rows["variant"] == variant]["missing"].iloc[0]
        values = [by_seed(rows, variant, missing, s, metric) for s in subsets]
        others = [by_seed(rows, reference, missing, s, metric) for s in subsets]
        minus = ["" if variant == reference or v.empty or o.empty else difference(v, o) for v, o in zip(values, others)]
        print(f"| {variant} | " + " | ".join(map(cell, values)) + " | " + " | ".join(minus) + " |")


def alpha_figure(rows: pd.DataFrame, path: Path) -> None:
    """Every seed's accuracy against alpha, for either modality alone; what is far below stands on the lower edge."""
    names = [v for v in rows["variant"].unique() if "p 2" not in v]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axis, subset, low in zip(figure.subplots(1, 2), ("image", "sound"), (86, 20)):
        seeds = [by_seed(rows, v, "audio_20", subset) for v in names]
        for position, values in enumerate(seeds):
            axis.plot([position] * len(values), values.clip(low), "o", color="C0", alpha=0.5, clip_on=False)
            fallen = int((values < low).sum())
            if fallen:
                axis.annotate(f"{fallen} of {len(values)}\nbelow", (position, low), (position, low + 0.6), ha="center")
        axis.plot([values.median() if values.median() >= low else np.nan for values in seeds], color="C0", label="median")
        axis.plot(names.index("alpha 0.1"), by_seed(rows, "alpha 0.1, p 2", "audio_20", subset).median(), "x", color="C1",
                  label="p = 2, median")
        axis.set(xticks=range(len(names)), xticklabels=[v.split()[1] for v in names], xlabel="alpha",
                 ylabel="test accuracy (%)", title=f"{subset} alone")
        axis.set_ylim(bottom=low)
        axis.grid(alpha=0.3)
        axis.legend(loc="lower left")
    figure.savefig(path, dpi=110)


def eicu_table(rows: pd.DataFrame, logistic: Path) -> None:
    """Rows: the 31 subsets. Columns: AUROC of logistic regression (eicu_logistic.py's output, if there), of the methods."""
    lines = logistic.read_text().splitlines()[2:] if logistic.is_file() else []
    regression = {cells[0]: cells[1:3] for cells in ([c.strip() for c in line.strip("|").split("|")] for line in lines)}
    methods = list(rows["variant"].unique())
    print("| subset | stays | logistic regression | " + " | ".join(methods) + " |")
    print("|---" + "|--:" * (len(methods) + 2) + "|")
    for subset in [*sorted(set(rows["subset"]) - {"available"}, key=lambda s: (s.count("+"), s)), "available"]:
        stays, auroc = regression.get(subset, ("", "-"))
        print(f"| {subset} | {stays} | {auroc} | " + " | ".join(
            cell(by_seed(rows, method, "full", subset, "auroc") / 100, digits=3) for method in methods) + " |")
    print("mean over subsets: " + ", ".join(f"{m} {cell(subset_mean(rows, m) / 100, digits=3)}" for m in methods)
          + (f", logistic regression {np.mean([float(v[1]) for v in regression.values()]):.3f}" if regression else ""))


def mimic_table(rows: pd.DataFrame) -> None:
    """AUROC of one seed: mean and range over the folds, of every subset that has samples."""
    for (variant, subset), part in rows[rows["metric"] == "auroc"].groupby(["variant", "subset"], sort=False):
        folds = part["value"].dropna() / 100
        if len(folds):
            print(f"| {variant} | {subset} | {folds.mean():.2f} | {folds.min():.2f} to {folds.max():.2f} | {len(folds)} |")


def subset_mean(rows: pd.DataFrame, variant: str) -> pd.Series:
    """Mean AUROC over subsets and folds of each seed."""
    chosen = rows[(rows["variant"] == variant) & (rows["metric"] == "auroc") & (rows["subset"] != "available")]
    return chosen.groupby("seed")["value"].mean()


def curves(path: Path, lines: dict[str, tuple[list, list[pd.Series]]], xlabel: str, title: str) -> None:
    """Mean and standard deviation over seeds against a number."""
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axis = figure.add_subplot()
    for name, (x, values) in lines.items():
        axis.errorbar(x, [v.mean() for v in values], [v.std() for v in values], marker="o", capsize=3, label=name)
    axis.set(xlabel=xlabel, ylabel="test accuracy (%)", title=title)
    axis.grid(alpha=0.3)
    if len(lines) > 1:
        axis.legend()
    figure.savefig(path, dpi=110)


def coverage_lines(parts: list[pd.DataFrame]) -> dict[str, tuple[list, list[pd.Series]]]:
    """Method -> (audio coverage in per cent, accuracy with both modalities of each seed), over two studies."""
    rows, lines = pd.concat(parts), {}
    for method in ("simmlm", "metakd"):
        tables = sorted(t for t in set(rows["missing"]) if t.startswith("audio_"))
        found = {int(t[-2:]): by_seed(rows, method, t, "image+sound") for t in tables}
        found = {rate: values for rate, values in found.items() if len(values)}
        lines[method] = list(found), list(found.values())
    return lines


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", type=Path, default=Path("."), help="folder of the figures")
    args = parser.parse_args()
    study = {name: read(args.folder, name) for name in
             ("audio", "visual", "sane", "weights", "coverage", "alpha", "smnist", "eicu", "mimic")}
    audio, coverage, alpha = study["audio"], study["coverage"], study["alpha"]
    if audio is not None:
        print("## audio")
        for name in [v for v in audio["variant"].unique() if v.startswith("full fusion")]:
            print(f"{name}: {cell(by_seed(audio, name, 'full', 'image+sound'))}")
        rates_table(audio, "image only", "image", PAPER_AUDIO)
    if study["visual"] is not None:
        print("\n## visual")
        rates_table(study["visual"], "sound only", "sound", PAPER_VISUAL)
    if coverage is not None and audio is not None:
        print("\n## coverage")
        lines = coverage_lines([audio, coverage])
        for method, (rates, values) in lines.items():
            print(method, ", ".join(f"{rate} %: {cell(v)}" for rate, v in zip(rates, values)))
        curves(args.o / "audio_coverage.png", lines, "training pairs with audio (%)", "both modalities at test")
    if alpha is not None:
        print("\n## alpha")
        for v in alpha["variant"].unique():
            print(f"{v}: image {cell(by_seed(alpha, v, 'audio_20', 'image'))}, "
                  f"sound {cell(by_seed(alpha, v, 'audio_20', 'sound'))}")
        alpha_figure(alpha, args.o / "alpha.png")
    for name, subsets, reference in (("sane", ["image", "sound", "image+sound"], "metakd"),
                                     ("weights", ["image", "sound", "image+sound"], "metakd"),
                                     ("smnist", ["image+sound", "image", "sound"], "vanilla_3h")):
        if study[name] is not None:
            print(f"\n## {name}")
            variants_table(study[name], subsets, "accuracy", reference)
    if study["eicu"] is not None:
        print("\n## eicu")
        eicu_table(study["eicu"], args.folder / "eicu_logistic.md")
    if study["mimic"] is not None:
        print("\n## mimic")
        mimic_table(study["mimic"])



if __name__ == "__main__":
    main()
