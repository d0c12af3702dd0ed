"""table.tex compiles with pdflatex, whatever the names, modalities and methods, and its rows have equal columns."""
from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from nnmiss.availability import Present, all_subsets, reported_subsets, subset_name
from nnmiss.evaluation.conventions import Conventions
from nnmiss.evaluation.latex_text import latex_text
from nnmiss.evaluation.markup import to_latex
from nnmiss.evaluation.tables import build_table

BRATS = ["whole_tumor", "tumor_core", "enhancing_tumor"]
FOUR = ["flair", "t1", "t1ce", "t2"]
EIGHT = [*FOUR, "adc", "swi_mag", "perf & dce", "pet%"]
ODD = ["Ångström-β ≥ 方", "č|x_&%#{2}$~^\\<>", "Ħ ﬁ ẽ½"]
EVERYTHING = {  # name -> modalities, subsets, regions, methods
    "one": (FOUR, all_subsets(4), BRATS, ["metakd"]),
    "three": (FOUR, all_subsets(4), BRATS, ["metakd", "modality_dropout", "mmFormer"]),
    "six": (FOUR, all_subsets(4), BRATS, ["MetaKD", "HMIS", "HVED", "RbSeg", "mmFormer", "ShaSpec"]),
    "six_regions": (FOUR, all_subsets(4), [*BRATS, "resection_cavity", "snfh", "netc"], ["metakd", "lckd"]),
    "two_modalities_odd_names": (["T1_é", "β#2"], all_subsets(2), ["läsion_1 <5 mm", "[x]"], ODD),
    "eight_modalities": (EIGHT, reported_subsets(8), BRATS, ["metakd"]),
    "eight_modalities_all_subsets": (EIGHT, all_subsets(8), BRATS, ["metakd", "modality_dropout", "lckd"]),
    "six_modalities_all_subsets": (EIGHT[:6], all_subsets(6), BRATS, ["metakd"]),
}
DOCUMENT = r"""\documentclass{article}
%s
\begin{document}
Before.
\input{table}
After.
\end{document}
"""


def table_tex(name: str) -> str:
    """table.tex of an evaluation with Dice and HD95; some values are undefined."""
    modalities, subsets, regions, methods = EVERYTHING[name]
    results = {method: random_results(modalities, subsets, regions, seed) for seed, method in enumerate(methods)}
    return "\n".join(to_latex(build_table(results, modalities, regions, metric, Conventions()))
                     for metric in ("dice", "hd95"))


def random_results(modalities: list[str], subsets: list[Present], regions: list[str], seed: int) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([["a", "b"], [subset_name(s, modalities) for s in subsets], regions,
                                        ["dice", "hd95"]], names=["case", "subset", "region", "metric"])
    frame = pd.DataFrame({"value": np.random.default_rng(seed).uniform(0, 1, len(index))}, index=index).reset_index()
    frame.loc[(frame["metric"] == "hd95") & (frame["subset"] == frame["subset"].iloc[0]), "value"] = np.nan
    return frame


def packages(tex: str) -> str:
    """The \\usepackage lines that the comments on top of the tables ask for."""
    needed = re.findall(r"^% Needs (\\usepackage\{[a-z,]+\})", tex, re.M)
    assert len(needed) == tex.count(r"\caption{")
    return "\n".join(dict.fromkeys(needed))


@pytest.mark.parametrize("name", EVERYTHING)
def test_structure(name):
    tex = table_tex(name)
    environments = []
    for kind, environment in re.findall(r"\\(begin|end)\{([a-z]+)\}", tex):
        if kind == "begin":
            environments.append(environment)
        else:
            assert environments.pop() == environment
    assert not environments
    plain = re.sub(r"\\[{}]", "", tex)
    assert plain.count("{") == plain.count("}") and len(re.findall(r"(?<!\\)\$", tex)) % 2 == 0
    tables = re.split(r"^% Needs ", tex, flags=re.M)[1:]
    assert len(tables) == 2
    for table in tables:
        layout = re.search(r"\\begin\{(?:tabular|longtable)\}\{@\{\}([cr]+)@\{\}\}", table)[1]
        rows = [line for line in table.splitlines() if line.endswith(r" \\")]
        assert len(rows) >= len(EVERYTHING[name][1]) + 3  # two of titles, the average
        for row in rows:
            cells = re.split(r"(?<!\\)&", row)
            spans = sum(int(re.match(r"\s*\\multicolumn\{(\d+)\}", c)[1]) - 1 for c in cells if "multicolumn" in c)
            assert len(cells) + spans == len(layout), row


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX engine (pdflatex) on this machine")
@pytest.mark.parametrize("name", EVERYTHING)
def test_pdflatex_sets_it_within_the_page(tmp_path, name):
    tex = table_tex(name)
    (tmp_path / "table.tex").write_text(tex, encoding="utf-8")
    (tmp_path / "main.tex").write_text(DOCUMENT % packages(tex), encoding="utf-8")
    for _ in range(2 if "longtable" in tex else 1):  # longtable knows its column widths in the second run
        run = subprocess.run(["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "main"], cwd=tmp_path,
                             capture_output=True, text=True, errors="replace", timeout=120)
        assert run.returncode == 0, "\n".join(line for line in run.stdout.splitlines() if line.startswith(("!", "l.")))
    assert (tmp_path / "main.pdf").stat().st_size > 1000
    for complaint in ("Overfull", "Float too large", "Missing character"):
        assert complaint not in run.stdout


@pytest.mark.parametrize("text, latex", [
    ("a_b & 5 % #1 {x}", r"a\_b \& 5 \% \#1 \{x\}"), ("\\", r"\textbackslash{}"), ("é ő ç", r"\'{e} \H{o} \c{c}"),
    ("λ Σ \u0391 ς \u03bf", r"$\lambda$ $\Sigma$ A $\varsigma$ o"), ("≥5", r"$\geq$5"), ("x₂ \uff21", "x2 A"),
    ("方", "[U+65B9]"), ("a\tb\u200b\u00a0c", "a b c"), ("e\u0301", r"\'{e}"),
    ("naïve|\"x\"", r"na\"{i}ve$|$''x''"), ("straße", r"stra\ss{}e"),
])
def test_text(text, latex):
    assert latex_text(text) == latex
