"""Subset tables as Markdown, as booktabs LaTeX and as a compact block of text for the terminal."""
from __future__ import annotations

from nnmiss.availability import Present
from nnmiss.evaluation.tables import Cell, SubsetTable

MARKDOWN = {"best": "**{}**", "second": "*{}*", "": "{}"}
LATEX = {"best": r"\textbf{{{}}}", "second": r"\textit{{{}}}", "": "{}"}
LATEX_SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
                 "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}


def circles(present: Present, filled: str = "●", open_: str = "○") -> list[str]:
    """A filled circle per modality that is there, an open one per modality that is missing."""
    return [filled if shown else open_ for shown in present]


def to_markdown(table: SubsetTable) -> str:
    """A Markdown table with its caption above."""
    header = list(table.modalities)
    for title, columns in table.blocks:
        header += [f"{title} {column}".strip().replace("|", r"\|") for column in columns]
    lines = [header + ["n"], [":-:"] * len(table.modalities) + ["--:"] * (len(header) - len(table.modalities) + 1)]
    for present, cells, n in table.rows:
        lines.append(circles(present) + [_marked(cell, MARKDOWN) for cell in cells] + [str(n)])
    for label, cells in table.footers:
        blank = [""] * (len(table.modalities) - 1)
        lines.append([label, *blank] + [_marked(cell, MARKDOWN) for cell in cells] + [""])
    return f"{table.caption}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def to_latex(table: SubsetTable) -> str:
    """A table environment; needs \\usepackage{booktabs} and, being wide in comparisons, \\usepackage{graphicx}."""
    m, widths = len(table.modalities), [len(columns) for _, columns in table.blocks]
    comparing = any(column for _, columns in table.blocks for column in columns)
    top = [rf"\multicolumn{{{m}}}{{c}}{{Modalities}}"]
    rules, start = [rf"\cmidrule(lr){{1-{m}}}"], m + 1
    for (title, _), width in zip(table.blocks, widths):
        top.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(title)}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    second = [latex_text(name) for name in table.modalities]
    second += [latex_text(column) for _, columns in table.blocks for column in columns] + ["$n$"]
    body = [circles(present, r"$\bullet$", r"$\circ$") + [_marked(c, LATEX, latex_text) for c in cells] + [str(n)]
            for present, cells, n in table.rows]
    footers = [[rf"\multicolumn{{{m}}}{{l}}{{{latex_text(label)}}}"] + [_marked(c, LATEX, latex_text) for c in cells]
               + [""] for label, cells in table.footers]
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(table.caption)}}}",
             rf"\label{{tab:subsets-{table.metric}}}"]
    lines += [r"\resizebox{\linewidth}{!}{%"] if comparing else []
    lines += [rf"\begin{{tabular}}{{{'c' * m}{'r' * sum(widths)}r}}", r"\toprule", " & ".join(top + [""]) + r" \\",
              " ".join(rules), " & ".join(second) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in body] + [r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in footers] + [r"\bottomrule", r"\end{tabular}" + "}" * comparing]
    return "\n".join(lines + [r"\end{table}"]) + "\n"


def to_text(table: SubsetTable) -> str:
    """Aligned columns without ranks, for the terminal."""
    header = [" ".join(table.modalities)]
    header += [f"{title} {column}".strip() for title, columns in table.blocks for column in columns] + ["n"]
    lines = [header]
    for present, cells, n in table.rows:
        marks = " ".join(c.center(len(name)) for c, name in zip(circles(present), table.modalities))
        lines.append([marks] + [cell.text for cell in cells] + [str(n)])
    lines += [[label] + [cell.text for cell in cells] + [""] for label, cells in table.footers]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join([line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:])]).rstrip()
                     for line in lines)


def latex_text(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def _marked(cell: Cell, styles: dict[str, str], escape=str) -> str:
    return styles[cell.rank].format(escape(cell.text))
