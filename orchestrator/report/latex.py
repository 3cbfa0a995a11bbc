"""Tables in LaTeX, for booktabs and siunitx (version 2 or 3): text in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from orchestrator.display import printable

MANY_COLUMNS = 8
"""A table with more columns is scaled to the width of the text."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"\ensuremath{\pm}",
    **{sign: rf"\ensuremath{{{sign}}}" for sign in "<>"},
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"{{{sign}}}" for sign in "[]*"},  # after the end of a row, LaTeX reads them as its argument
    **{sign: rf"\symbol{{{ord(sign)}}}" for sign in '"`'},  # some babel languages have commands that begin with these
}

_LIGATURE = re.compile(r"(?<=([-',]))(?=\1)")
"""Separates two characters that LaTeX would merge, such as two hyphens into a dash."""

_LATIN = (set(map(chr, range(0xA1, 0x180))) - set("«»ÐÞðþĄąĘęĐđĦħĮįĸĿŀŉŊŋŦŧŲųſ")) | set("–—•…€™")
_FOREIGN = re.compile(rf"[^\x00-\x7f{''.join(sorted(_LATIN))}]+")
"""What pdfLaTeX stops at, in the encoding that it has by default: all but letters with accents and a few signs."""

_NUMBER = re.compile(r"(?<![\w.])([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?: ± (\d+(?:\.\d+)?))?(?![\w.])")
_SEEDS = re.compile(r" \((?:n=(\d+)|(\d+/\d+))\)")


def latex_table(
    table: pd.DataFrame, label: str, caption: str, notes: Sequence[str], name_columns: Sequence[str]
) -> str:
    """A table as LaTeX, to be included with the command input.

    Args:
        table: the table as text; siunitx formats its numbers, in right-aligned columns.
        label: the table's label, after `tab:`.
        caption: the caption above the table.
        notes: lines below the table.
        name_columns: the text columns, which are not formatted.

    Returns:
        A `table` environment; its first lines say what the preamble must contain.
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
    texts = "".join([caption, *notes, *map(str, columns), *(str(cell) for line in table.to_numpy() for cell in line)])
    lines = [
        *(
            ["%% pdfLaTeX shows characters that it lacks as codes; XeLaTeX and LuaLaTeX show them if the font has them"]
            if _FOREIGN.search(texts)
            else ()
        ),
        r"% \usepackage{booktabs}",
        *([r"% \usepackage{graphicx}"] if is_wide else ()),
        r"% \usepackage{siunitx}",
        r"% \sisetup{separate-uncertainty, retain-explicit-plus}",
        r"% \sisetup{group-digits=integer, group-separator={,}, group-minimum-digits=4}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(caption)}}}",
        rf"  \label{{tab:{re.sub('[^A-Za-z0-9._-]', '-', label)}}}",
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
    """A text escaped for LaTeX, in one line; pdfLaTeX shows characters that it lacks as codes."""
    text = printable(" ".join(text.splitlines()))
    escaped = "".join(_SPECIAL.get(sign, sign) for sign in text)
    return _FOREIGN.sub(_of_other_engines, _LIGATURE.sub(r"\\kern0pt{}", escaped))


def _of_other_engines(found: re.Match[str]) -> str:
    codes = " ".join(f"U+{ord(sign):04X}" for sign in found[0])
    return rf"\ifdefined\Umathcode {found[0]}\else\texttt{{{codes}}}\fi{{}}"


def latex_cell(text: str) -> str:
    """A cell of numbers: `96.74 ± 0.31 (n=3)` becomes a number with its uncertainty; missing seeds a superscript."""
    parts, end, cut = [], 0, _SEEDS.sub("", text)
    for found in _NUMBER.finditer(cut):
        parts.append(latex_text(cut[end : found.start()]))
        number = found[1].replace(",", "")
        parts.append(rf"\num{{{number}}}" if found[2] is None else rf"\num{{{number} \pm {found[2]}}}")
        end = found.end()
    parts.append(latex_text(cut[end:]))
    partial = [seeds[2] for seeds in _SEEDS.finditer(text) if seeds[2]]
    return "".join(parts) + "".join(rf"\textsuperscript{{{seeds}}}" for seeds in partial)
