"""Which modalities the cases have: of the training set, and of the evaluated cases."""
from __future__ import annotations

from html import escape
from pathlib import Path

import pandas as pd

from nnmiss.availability import Present, parse_subset, read_availability
from nnmiss.errors import NnmissError
from nnmiss.preprocessing.subset_report import ROWS_SHOWN, count_subsets
from nnmiss.report.html_text import Section, cell, circles, count, head, paragraph, table, tag
from nnmiss.report.sources import Source


def data_section(source: Source, preprocessed: Path | None) -> Section:
    """A table of the training cases where availability.json is found, and one of the evaluated cases."""
    parts, missing = [], []
    try:
        if preprocessed is None:
            raise NnmissError("nnUNet_preprocessed of this data set was not found")
        trained = read_availability(preprocessed, source.modalities)
        parts.append(availability_table(trained, source.modalities, "Training cases"))
    except NnmissError as error:
        missing.append(f"Which modalities the training cases have is not shown: {error}.")
        parts.append(paragraph(missing[0], "note"))
    evaluated = evaluated_availability(source)
    parts.append(availability_table(evaluated, source.modalities, f"Evaluated cases of {source.name}, each with every "
                                    "modality that was shown in any of its rows"))
    return Section("data", "Modalities of the cases", tag("div", "".join(parts), class_="columns"), tuple(missing))


def evaluated_availability(source: Source) -> dict[str, Present]:
    """Case -> the modalities that occur in its subsets: with all subsets evaluated, those that the case has."""
    pairs = source.results[["case", "subset"]].drop_duplicates()
    parsed = {subset: parse_subset(subset, source.modalities) for subset in pairs["subset"].unique()}
    found: dict[str, Present] = {}
    for case, subset in zip(pairs["case"], pairs["subset"]):
        before = found.get(case, (False,) * len(source.modalities))
        found[case] = tuple(a or b for a, b in zip(before, parsed[subset]))
    return found


def availability_table(available: dict[str, Present], modalities: list[str], title: str) -> str:
    """A row per subset that occurs, the most frequent first, with a bar, and how many have each modality."""
    found = count_subsets(available, modalities)
    most = int(found["cases"].max())
    rows = []
    for _, row in found.head(ROWS_SHOWN).iterrows():
        present = parse_subset(row["subset"], modalities)
        first = tag("th", f"{sum(present)}" + tag("span", " " + escape(row["subset"]), class_="unseen"), scope="row",
                    class_="number")
        bar = tag("td", tag("span", "", class_="bar", style=f"--share:{row['cases'] / most:.3f}"), class_="bar-cell",
                  aria_hidden="true")
        rows.append([first, *circles(present, modalities), cell(f"{row['cases']:,}"), cell(f"{row['percent']:.1f}"), bar])
    rest = found.iloc[ROWS_SHOWN:]
    if len(rest):
        rows.append([head(f"{len(rest)} further subsets", "row", colspan=len(modalities) + 1),
                     cell(f"{rest['cases'].sum():,}"), cell(f"{rest['percent'].sum():.1f}"), cell("")])
    have = pd.DataFrame(available.values(), columns=modalities).sum()
    footer = [head("have it", "row"), *(cell(f"{int(have[m]):,}", "circle") for m in modalities),
              cell(f"{len(available):,}"), cell("100.0"), cell("")]
    header = [[head("no.", class_="number"), *(head(name, class_="circle") for name in modalities),
               head("cases", class_="number"), head("%", class_="number"), '<td class="bar-cell"></td>']]
    return table(f"{title}: {count(len(available), 'case')}, {count(len(found), 'subset')} of modalities.", header, rows,
                 [footer], "plain")
