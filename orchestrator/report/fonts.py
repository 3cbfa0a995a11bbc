r"""Labels that matplotlib can draw: with fonts that have their characters, and short enough.

Figures are set in DejaVu Sans, which comes with matplotlib and is the same everywhere. A character that it lacks is
drawn in a font of the machine that has it; if there is none, the character is written as its code, such as `\u7f51`, so
that labels remain distinct and matplotlib does not warn.
"""

from __future__ import annotations

import functools
import itertools
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib import font_manager

FONT = "DejaVu Sans"

LABEL_WIDTH, LABEL_LINES = 30, 3
"""Letters in a line of a label, and lines."""

_NOT_FOR_TEXT = ("lastresort", "adobeblank", "stixsize", "stixnonunicode", "cm")
"""Beginnings of fonts, without spaces, that have a sign and show a box, a formula's part or another sign."""


def families(text: str) -> list[str]:
    """The fonts for drawing a text, in the order in which matplotlib tries them."""
    return [FONT, *_found(_beyond(text))[0]]


def lacking(text: str) -> list[str]:
    """The characters of a text that no font on this machine has, each once, in the text's order."""
    missing = _found(_beyond(text))[1]
    return list(dict.fromkeys(sign for sign in text if sign in missing))


def drawable(text: str) -> str:
    """A text with the characters that no font has written as codes."""
    missing = _found(_beyond(text))[1]
    return "".join(sign.encode("unicode_escape").decode() if sign in missing else sign for sign in text)


def label(text: str) -> str:
    """A text as a label in a figure: drawable, in a few lines; a long one is shortened in the middle."""
    signs = [drawable(sign) for sign in text]
    for room in range(LABEL_LINES * LABEL_WIDTH, LABEL_WIDTH, -1):
        shown = _cut(signs, room)
        lines = textwrap.wrap(shown, max(1, LABEL_WIDTH * len(shown) // max(1, _columns(shown))))
        if len(lines) <= LABEL_LINES:
            break
    return "\n".join(lines)


def _cut(signs: Sequence[str], room: int) -> str:
    """A sequence of characters shortened in the middle to a width, measured in letters."""
    widths = [_columns(sign) for sign in signs]
    if sum(widths) <= room:
        return "".join(signs)
    ends = itertools.accumulate(reversed(widths))
    end = sum(1 for _ in itertools.takewhile(lambda width: width <= room // 2, ends))
    starts = itertools.accumulate(widths)
    start = sum(1 for _ in itertools.takewhile(lambda width: width < room - room // 2, starts))
    return "".join([*signs[:start], "…", *signs[len(signs) - end :]])


def _columns(text: str) -> int:
    """The width of a text in letters: East Asian characters are two letters wide."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def _beyond(text: str) -> frozenset[str]:
    """The characters of a text that the figures' own font lacks."""
    return frozenset() if text.isascii() else frozenset(text) - _signs(font_manager.findfont(FONT))


@functools.lru_cache(maxsize=256)
def _found(signs: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Fonts of this machine that have some of these characters, and the characters that none has."""
    found: list[str] = []
    fonts = _fonts() if signs else iter(())
    for name, file in fonts:
        if signs & _signs(file):
            found.append(name)
            signs -= _signs(file)
        if not signs:
            break
    return tuple(found), signs


def _fonts() -> Iterator[tuple[str, str]]:
    """Name and file of every text font of this machine, upright fonts of regular weight first."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for file in font_manager.findSystemFonts():  # matplotlib's cached list may lack new fonts
        if file not in known:
            try:
                font_manager.fontManager.addfont(file)
            except (OSError, RuntimeError, ValueError):
                continue  # damaged, or of a kind that matplotlib cannot draw, such as bitmaps
    entries = sorted(
        font_manager.fontManager.ttflist,
        key=lambda entry: (entry.style != "normal", entry.weight != 400, entry.name, entry.fname),
    )
    for entry in entries:
        if not entry.name.replace(" ", "").replace(".", "").casefold().startswith(_NOT_FOR_TEXT):
            yield entry.name, entry.fname


@functools.cache
def _signs(file: str) -> frozenset[str]:
    """The characters that a font has."""
    if not Path(file).exists():  # removed since matplotlib cached its list
        return frozenset()
    try:
        return frozenset(map(chr, font_manager.get_font(file).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
