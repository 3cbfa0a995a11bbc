"""Tables in LaTeX: every character is escaped, numbers are siunitx's, and the document compiles."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.report.latex import latex_cell, latex_table, latex_text

TABLE = pd.DataFrame(
    {
        "method": ["psp_50% & more", "neuromodnet"],
        "r_1 # {x}": ["96.74 ± 0.31 (n=3)", "mixed (2/3)"],
        "p": ["-0.5 ± - (n=1)", "- (0/3)"],
        "params/task": ["268,800 / 1,299", "<0.0001"],
    }
)


@pytest.mark.parametrize(
    ("cell", "latex"),
    [
        ("96.74 ± 0.31 (n=3)", r"\num{96.74 \pm 0.31}"),
        ("96.74 ± 0.31 (2/3)", r"\num{96.74 \pm 0.31}\textsuperscript{2/3}"),
        ("+1.47 ± - (n=1)", r"\num{+1.47} \ensuremath{\pm} -"),
        ("- (0/3)", r"-\textsuperscript{0/3}"),
        ("268,800 / 1,299", r"\num{268800} / \num{1299}"),
        ("<0.0001", r"\ensuremath{<}\num{0.0001}"),
        ("1e-05", r"\num{1e-05}"),
        ("FC256 50%", r"FC256 \num{50}\%"),
        ("", ""),
    ],
)
def test_the_numbers_of_a_cell_are_siunitxs(cell: str, latex: str) -> None:
    """With their deviation; names that hold digits stay as they are; missing seeds are raised."""
    assert latex_cell(cell) == latex


def test_signs_that_mean_something_to_latex_are_escaped() -> None:
    """Each of them."""
    assert latex_text("a_b&c%d$e#f{g}~^\\") == (
        r"a\_b\&c\%d\$e\#f\{g\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("[2em] x", r"{[}2em{]} x"),
        ("*x", r"{*}x"),
        ("\\\\[1ex]", r"\textbackslash{}\textbackslash{}{[}1ex{]}"),
        ("a--b---c", r"a-\kern0pt{}-b-\kern0pt{}-\kern0pt{}-c"),
        ("''x,,", r"'\kern0pt{}'x,\kern0pt{},"),
        ('"a ?`', r"\symbol{34}a ?\symbol{96}"),
        ("é Ž €", "é Ž €"),
        ("网络 x", r"\ifdefined\Umathcode 网络\else\texttt{U+7F51 U+7EDC}\fi{} x"),
        ("a\nb\x00\x1b", r"a b\textbackslash{}x00\textbackslash{}x1b"),
        ("", ""),
    ],
)
def test_a_text_is_nothing_but_itself(text: str, latex: str) -> None:
    """No argument of the row before, no ligature, no language's command, no sign that stops the engine, one line."""
    assert latex_text(text) == latex


def test_labels_of_sweeps_are_kept_apart() -> None:
    """A table's label is its file's name, underscores and all."""
    labels = [latex_table(TABLE, name, "", [], ["method"]).partition(r"\label{")[2] for name in ("a_b", "a-b", "a.b")]
    assert len({label.partition("}")[0] for label in labels}) == 3


def test_a_table_has_its_parts() -> None:
    """Preamble as comments, caption, a row a line, notes; how many seeds a number is of."""
    text = latex_table(TABLE, "small.x y", "About 5 %.", ["a note: 3 < 4"], ["method"])
    assert r"\begin{tabular}{lrrr}" in text
    assert r"\caption{About 5 \%. n = 1 or 3 where no finished/asked seeds are raised.}" in text
    assert r"\label{tab:small.x-y}" in text
    assert (
        r"    psp\_50\% \& more & \num{96.74 \pm 0.31} & \num{-0.5} \ensuremath{\pm} - & \num{268800} / \num{1299} \\"
        in text
    )
    assert r"\par\footnotesize a note: 3 \ensuremath{<} 4" in text


ODD = [
    "[2em] x",
    "*",
    r"\\[1ex]",
    "",
    "a--b",
    '"',
    "?`",
    "網路 α",
    "🚀",
    "{",
    "%",
    "<a>",
    "~^",
    "ąðé",
    "ש",
    "#1",
    "&",
]


@pytest.mark.parametrize("repeat", [1, 3])
def test_a_table_compiles(tmp_path: Path, repeat: int) -> None:
    """With the packages that its first lines ask for, also where it is wider than a page; none is left out."""
    latex = shutil.which("pdflatex")
    if latex is None:
        pytest.skip("pdflatex is not installed")
    if (
        shutil.which("kpsewhich")
        and not subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True, check=False).stdout
    ):
        pytest.skip("siunitx is not installed")
    odd = pd.DataFrame([dict.fromkeys(TABLE.columns, "1.5 ± 0.1 (n=3)") | {"method": label} for label in ODD])
    wide = pd.concat([pd.concat([TABLE, odd])] * repeat, axis=1)
    table = latex_table(wide, "a_b.c", "[A] caption with 5 % & ± 网.", ODD, ["method"])
    preamble = [line.removeprefix("% ") for line in table.splitlines() if line.startswith("% ")]
    document = [r"\documentclass{article}", *preamble, r"\begin{document}", table, r"\end{document}"]
    (tmp_path / "a.tex").write_text("\n".join(document), encoding="utf-8")
    done = subprocess.run(
        [latex, "-interaction=nonstopmode", "-halt-on-error", "a.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "a.pdf").stat().st_size > 0
    assert "Overfull" not in done.stdout
