"""Tables of texts as Markdown and as booktabs LaTeX."""
from __future__ import annotations

from nnmiss.evaluation.classification.tables import TextTable
from nnmiss.evaluation.latex_text import latex_text
from nnmiss.evaluation.markup import LATEX, MARKDOWN, PAGE
from nnmiss.evaluation.tables import UNDEFINED, Cell

WIDEST = 40  # characters of a name that a long table, which cannot be scaled, sets on one line


def to_markdown(table: TextTable) -> str:
    """A Markdown table with title and caption; titles over several columns stand before the columns' names."""
    over = [title for title, width in table.groups for _ in range(width)] or [""] * len(table.header)
    header = [f"{title} {name}".strip() for title, name in zip(over, table.header)]
    rule = [":--"] * table.left + ["--:"] * (len(header) - table.left)
    lines = [[text.replace("|", r"\|") for text in header], rule]
    lines += [[MARKDOWN[cell.rank].format(cell.text.replace("|", r"\|")) for cell in line] for line in table.lines]
    return f"## {table.title}\n\n{table.caption}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def to_latex(table: TextTable) -> str:
    """A table no wider than the line; one longer than a page is a longtable."""
    columns = "l" * table.left + "r" * (len(table.header) - table.left)
    if len(table.lines) > PAGE and max(len(cell.text) for line in table.lines for cell in line[:table.left]) > WIDEST:
        columns = columns.replace("l", r"p{0.3\linewidth}", 1)
    body = [" & ".join(map(_latex_cell, line)) + r" \\" for line in table.lines]
    head = [r"\toprule", *_groups(table), " & ".join(map(latex_text, table.header)) + r" \\", r"\midrule"]
    caption = rf"\caption{{{latex_text(f'{table.title}. {table.caption}')}}}"
    if len(body) > PAGE:
        return "\n".join([r"% Needs \usepackage{booktabs,longtable}.", r"\begingroup\scriptsize",
                          rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}", caption + r" \\[1ex]", *head, r"\endfirsthead",
                          *head, r"\endhead", *body, r"\bottomrule", r"\end{longtable}", r"\endgroup"]) + "\n"
    return "\n".join([r"% Needs \usepackage{booktabs,graphicx}.", r"\begin{table}", r"\centering", caption,
                      r"\par\medskip", r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
                      rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", *head, *body, r"\bottomrule", r"\end{tabular}}",
                      r"\end{table}"]) + "\n"


def _groups(table: TextTable) -> list[str]:
    """The row of titles over several columns, with rules below."""
    titles, rules, start = [], [], 1
    for title, width in table.groups:
        titles.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(title)}}}")
        if title:
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    return [" & ".join(titles) + r" \\", " ".join(rules)] if titles else []


def _latex_cell(cell: Cell) -> str:
    text = "--" if cell.text == UNDEFINED else latex_text(cell.text).replace(" (-", " ($-$").replace(", -", ", $-$")
    return LATEX[cell.rank].format(f"$-${text[1:]}" if text.startswith("-") and text != "--" else text)
