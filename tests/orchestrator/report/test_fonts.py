"""Labels in figures: every character is drawn in a font that has it, or written as its code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from orchestrator.report import fonts

SIGN = "\U0001f0ff"  # no character yet, so that no font has it
OTHER = "\U0001f0fe"


@pytest.fixture
def font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A font on this machine with one more character, by its name; and a file that only claims to be a font."""
    pen = TTGlyphPen(None)
    for place, at in enumerate([(0, 0), (500, 0), (500, 700)]):
        (pen.lineTo if place else pen.moveTo)(at)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "sign"])
    builder.setupCharacterMap({ord(SIGN): "sign"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "sign": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "sign": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "One Sign", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(tmp_path / "one.ttf")
    (tmp_path / "none.ttf").write_bytes(b"no font")
    system = [str(tmp_path / name) for name in ("none.ttf", "one.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: system)
    known = list(font_manager.fontManager.ttflist)
    fonts._found.cache_clear()
    yield "One Sign"
    font_manager.fontManager.ttflist[:] = known
    fonts._found.cache_clear()


def test_a_sign_that_a_font_of_this_machine_has_is_drawn_in_it(font: str) -> None:
    """Also a font that was installed since matplotlib made its list; one that is damaged is passed over."""
    assert fonts.families(f"a {SIGN}") == ["DejaVu Sans", font]
    assert fonts.drawable(f"a {SIGN}{OTHER}") == f"a {SIGN}\\U0001f0fe"
    assert fonts.lacking(f"{OTHER} {SIGN} {OTHER}") == [OTHER]


def test_a_sign_that_no_font_has_is_written_as_its_code() -> None:
    """So labels of such signs stay apart; those that the font has are as they are."""
    assert fonts.drawable(f"a {SIGN} é α ש م ❤") == "a \\U0001f0ff é α ש م ❤"
    assert fonts.lacking("_plain $x") == []
    assert fonts.families("é α") == ["DejaVu Sans"]


@pytest.mark.parametrize("text", ["x" * 5000, "a word " * 1000, "网" * 5000, SIGN * 200, "e\u0301" * 3000])
def test_a_long_label_is_shortened(text: str) -> None:
    """To a few lines, whatever it is made of; its end, which has the scale, stays."""
    label = fonts.label(f"{text} FC256")
    assert label.count("\n") < fonts.LABEL_LINES
    assert max(map(len, label.split("\n"))) <= fonts.LABEL_WIDTH
    assert label.endswith("FC256")
    assert "…" in label
