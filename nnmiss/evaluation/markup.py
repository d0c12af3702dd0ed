"""Subset tables as Markdown, as booktabs LaTeX and as a compact block of text for the terminal."""
from __future__ import annotations

from nnmiss.availability import Present
from nnmiss.evaluation.latex_text import latex_text
from nnmiss.evaluation.tables import UNDEFINED, Cell, SubsetTable

MARKDOWN = {"best": "**{}**", "second": "*{}*", "": "{}"}
LATEX = {"best": r"\textbf{{{}}}", "second": r"\textit{{{}}}", "": "{}"}
PAGE = 31  # rows that fit on a page with caption and titles: all subsets of five modalities
NARROW, WIDE = 8, 20  # columns that surely fit the line, and that are legible when scaled down to it


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
        lines.append(circles(present) + [_marked(cell, MARKDOWN) for cell in cells] + [n])
    for label, cells in table.footers:
        blank = [""] * (len(table.modalities) - 1)
        lines.append([label, *blank] + [_marked(cell, MARKDOWN) for cell in cells] + [""])
    return f"{table.caption}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def to_latex(table: SubsetTable) -> str:
    """A table environment no wider than the line; very wide it lies on its side, long it goes on over pages.

    The packages it needs stand on top.
    """
    m, columns = len(table.modalities), [column for _, block in table.blocks for column in block]
    body = [circles(present, r"$\bullet$", r"$\circ$") + [_marked(c, LATEX, _latex_value) for c in cells]
            + [latex_text(n)] for present, cells, n in table.rows]
    footers = [[rf"\multicolumn{{{m}}}{{l}}{{{latex_text(label)}}}"] + [_marked(c, LATEX, _latex_value) for c in cells]
               + [""] for label, cells in table.footers]
    body, footers = ([" & ".join(row) + r" \\" for row in rows] for rows in (body, footers))
    caption = rf"\caption{{{latex_text(table.caption)}}}\label{{tab:subsets-{table.metric}}}"
    layout = "@{}" + "c" * m + "r" * len(columns) + "r@{}"
    parts = _latex_head(table), [*body, r"\midrule", *footers, r"\bottomrule"]
    arrange = _latex_pages if len(body) > PAGE else _latex_float
    return "\n".join(arrange(caption, layout, *parts, m + len(columns) + 1)) + "\n"


def _latex_float(caption: str, layout: str, head: list[str], rows: list[str], width: int) -> list[str]:
    """One page at most, scaled down to the line; on its side where it would become illegible."""
    tabular = [rf"\begin{{tabular}}{{{layout}}}", *head, *rows, r"\end{tabular}"]
    if width > NARROW:
        tabular = [r"\setlength{\tabcolsep}{4pt}",
                   r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%", *tabular[:-1],
                   tabular[-1] + "}"]
    environment, packages = ("table", "") if width <= WIDE else ("sidewaystable", ",rotating")
    return [rf"% Needs \usepackage{{booktabs,graphicx{packages}}}. Across two columns: {environment}*.",
            rf"\begin{{{environment}}}", r"\centering", caption, r"\par\medskip", *tabular, rf"\end{{{environment}}}"]


def _latex_pages(caption: str, layout: str, head: list[str], rows: list[str], width: int) -> list[str]:
    """A longtable with its head on every page. It cannot be scaled: its font is small, and wide it lies on its side."""
    wide = width > NARROW + 6
    size = r"\tiny" if wide else r"\scriptsize"
    caption = caption.replace(r"\caption{", r"\caption{\small ", 1)
    lines = [rf"\begingroup{size}\setlength{{\tabcolsep}}{{3pt}}\setlength{{\LTcapwidth}}{{\linewidth}}",
             rf"\begin{{longtable}}{{{layout}}}", caption + r" \\[1ex]", *head, r"\endfirsthead", *head, r"\endhead",
             *rows, r"\end{longtable}", r"\endgroup"]
    if wide:
        lines = [r"\begin{landscape}", *lines, r"\end{landscape}"]
    return ["% Needs \\usepackage{booktabs,graphicx,longtable,lscape}. Not inside two columns.", *lines]


def _latex_head(table: SubsetTable) -> list[str]:
    """Rows of titles with their rules; names are set upright where they would widen the columns."""
    m, start = len(table.modalities), len(table.modalities) + 1
    top, rules = [rf"\multicolumn{{{m}}}{{c}}{{Modalities}}"], [rf"\cmidrule(lr){{1-{m}}}"]
    columns = [column for _, block in table.blocks for column in block]
    if any(columns):
        for title, block in table.blocks:
            top.append(rf"\multicolumn{{{len(block)}}}{{c}}{{{latex_text(title)}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + len(block) - 1}}}")
            start += len(block)
        top.append("")
    else:  # one method: the regions are the columns
        columns = [title for title, _ in table.blocks]
        top += [""] * (len(columns) + 1)
    names = _column_names(table.modalities, 5) + _column_names(columns, 8) + ["$n$"]
    return [r"\toprule", " & ".join(top) + r" \\", " ".join(rules), " & ".join(names) + r" \\", r"\midrule"]


def _column_names(names: list[str], widest: int) -> list[str]:
    if max(map(len, names)) <= widest:
        return [latex_text(name) for name in names]
    return [rf"\multicolumn{{1}}{{c}}{{\rotatebox{{90}}{{{latex_text(name)}}}}}" for name in names]


def to_text(table: SubsetTable) -> str:
    """Aligned columns without ranks, for the terminal."""
    header = [" ".join(table.modalities)]
    header += [f"{title} {column}".strip() for title, columns in table.blocks for column in columns] + ["n"]
    lines = [header]
    for present, cells, n in table.rows:
        marks = " ".join(c.center(len(name)) for c, name in zip(circles(present), table.modalities))
        lines.append([marks] + [cell.text for cell in cells] + [n])
    lines += [[label] + [cell.text for cell in cells] + [""] for label, cells in table.footers]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join([line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:])]).rstrip()
                     for line in lines)


def _latex_value(text: str) -> str:
    """A number with a minus sign, not a hyphen; a dash stays a dash."""
    return latex_text(text).replace("-", "$-$") if text != UNDEFINED else "--"


def _marked(cell: Cell, styles: dict[str, str], escape=str) -> str:
    return styles[cell.rank].format(escape(cell.text))
