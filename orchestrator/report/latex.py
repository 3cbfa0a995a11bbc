"""Tables in LaTeX, for booktabs and siunitx (version 2 or 3): text in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

MANY_COLUMNS = 8
"""A table with more is made as wide as the text."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"\ensuremath{\pm}",
    **{sign: rf"\ensuremath{{{sign}}}" for sign in "<>"},
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}

_NUMBER = re.compile(r"(?<![\w.])([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?: ± (\d+(?:\.\d+)?))?(?![\w.])")
_SEEDS = re.compile(r" \((?:n=(\d+)|(\d+/\d+))\)")


def latex_table(
    table: pd.DataFrame, label: str, caption: str, notes: Sequence[str], name_columns: Sequence[str]
) -> str:
    """A table as LaTeX, to be read in by the command input.

    Args:
        table: text; its numbers become siunitx's, in columns flush right.
        label: of the table, after `tab:`.
        caption: above it.
        notes: lines below it.
        name_columns: the columns that are text and stay as they are.

    Returns:
        A `table` environment; its first lines say what the preamble must have.
    """
    columns = list(table.columns)
    alignment = "".join("l" if name in name_columns else "r" for name in columns)
    rows = [
        [
            latex_text(str(cell)) if name in name_columns else latex_cell(str(cell))
            for name, cell in zip(columns, line, strict=True)
        ]
        for line in table.to_numpy().tolist()
    ]
    counts = sorted({int(n) for line in table.to_numpy().tolist() for n in re.findall(r"\(n=(\d+)\)", " ".join(line))})
    if counts:
        caption += f" n = {' or '.join(map(str, counts))} where no finished/asked seeds are raised."
    is_wide = len(columns) > MANY_COLUMNS
    lines = [
        r"% \usepackage{booktabs}",
        *([r"% \usepackage{graphicx}"] if is_wide else ()),
        r"% \usepackage{siunitx}",
        r"% \sisetup{separate-uncertainty, retain-explicit-plus}",
        r"% \sisetup{group-digits=integer, group-separator={,}, group-minimum-digits=4}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(caption)}}}",
        rf"  \label{{tab:{re.sub('[^A-Za-z0-9.-]', '-', label)}}}",
        *([r"  \resizebox{\textwidth}{!}{%"] if is_wide else ()),
        rf"  \begin{{tabular}}{{{alignment}}}",
        r"    \toprule",
        "    " + " & ".join(map(latex_text, map(str, columns))) + r" \\",
        r"    \midrule",
        *("    " + " & ".join(row) + r" \\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}" + ("}" if is_wide else ""),
        *(rf"  \par\footnotesize {latex_text(note)}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """Text with LaTeX's own signs escaped."""
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def latex_cell(text: str) -> str:
    """A cell of numbers: `96.74 ± 0.31 (n=3)` becomes one number with its uncertainty; missing seeds are raised."""
    parts, end, cut = [], 0, _SEEDS.sub("", text)
    for found in _NUMBER.finditer(cut):
        parts.append(latex_text(cut[end : found.start()]))
        number = found[1].replace(",", "")
        parts.append(rf"\num{{{number}}}" if found[2] is None else rf"\num{{{number} \pm {found[2]}}}")
        end = found.end()
    parts.append(latex_text(cut[end:]))
    partial = [seeds[2] for seeds in _SEEDS.finditer(text) if seeds[2]]
    return "".join(parts) + "".join(rf"\textsuperscript{{{seeds}}}" for seeds in partial)
