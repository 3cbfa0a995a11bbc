"""Colours of methods in figures: a palette that stands out on white, and the measures that it keeps.

`PALETTE` was searched by computer: over colours with a contrast of at least 3 to 1 on white, it maximises the smallest
distance between two of its colours, as people with normal vision, protanopia and deuteranopia see them (distances of
the latter two count twice). Three colours were fixed: Okabe and Ito's blue and vermilion, and black.
"""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from matplotlib.colors import to_rgb

Colour: TypeAlias = tuple[float, float, float]
"""Red, green and blue (sRGB) in [0, 1]."""

PALETTE = (
    *("#0072b2", "#d55e00", "#1e693c", "#784b00", "#e15ae1", "#000000", "#b47878", "#d21e4b"),
    *("#0096a5", "#4b0096", "#3ca52d", "#690000", "#0069f0", "#b41e78", "#3c2d78", "#5a1e3c"),
)

CONTRAST = 3.0
"""The contrast that WCAG 2.1 (1.4.11) requires between graphics and adjacent colours."""

APART, APART_UNSEEN = 35.0, 16.0
"""The smallest distance between two colours of the palette: with normal vision, and without red or green cones."""

DARK, DARKEST, LIGHTEST = 0.04, 0.55, 0.45
"""For shades: the luminance below which colours are lightened instead of darkened, and by how much."""

Matrix: TypeAlias = tuple[Colour, Colour, Colour]

VISIONS: Mapping[str, Matrix] = MappingProxyType(
    {
        "protanopia": (
            (0.152286, 1.052583, -0.204868),
            (0.114503, 0.786281, 0.099216),
            (-0.003882, -0.048116, 1.051998),
        ),
        "deuteranopia": (
            (0.367322, 0.860646, -0.227968),
            (0.280085, 0.672501, 0.047413),
            (-0.011820, 0.042940, 0.968881),
        ),
    }
)
"""Linear red, green and blue as somebody sees them (Machado, Oliveira and Fernandes 2009, severity 1)."""

_TO_XYZ: Matrix = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
"""From linear red, green and blue; the second row is the relative luminance."""

_WHITE: Colour = (0.95047, 1.0, 1.08883)
"""What it gives for white (D65)."""


def luminance(colour: Colour) -> float:
    """The relative luminance in [0, 1], as WCAG defines it."""
    return _product(_TO_XYZ, _linear(colour))[1]


def contrast(colour: Colour) -> float:
    """The contrast with white, from 1 to 21, as WCAG defines it."""
    return 1.05 / (luminance(colour) + 0.05)


def distance(one: Colour, other: Colour, vision: str | None = None) -> float:
    """The distance in CIELAB (CIE 1976): below 2.3 people see no difference; black and white are 100 apart.

    Args:
        one: a colour.
        other: a colour.
        vision: one of `VISIONS`; None: normal.
    """
    return math.dist(_lab(one, vision), _lab(other, vision))


def hue_at(hue: float, wanted: float) -> Colour:
    """A vivid colour of a hue in [0, 1) and a relative luminance."""
    low, high = 0.0, 1.0
    for _ in range(20):  # lightness by bisection: luminance grows with it
        middle = (low + high) / 2
        colour = colorsys.hls_to_rgb(hue, middle, 0.85)
        low, high = (middle, high) if luminance(colour) < wanted else (low, middle)
    return colour


def shades(colour: Colour, number: int) -> list[Colour]:
    """Shades of a colour, all with its contrast or enough: itself, then darker ones, or lighter ones if it is dark."""
    steps = [step / max(1, number - 1) for step in range(number)]
    if luminance(colour) < DARK:
        return [_mixed(colour, 1.0, LIGHTEST * step) for step in steps]
    return [_mixed(colour, 0.0, DARKEST * step) for step in steps]


def _mixed(colour: Colour, other: float, share: float) -> Colour:
    """A colour, `share` of the way to a grey."""
    red, green, blue = ((1 - share) * value + share * other for value in colour)
    return red, green, blue


def palette() -> tuple[Colour, ...]:
    """`PALETTE` as numbers."""
    return tuple(to_rgb(name) for name in PALETTE)


@functools.lru_cache(maxsize=4096)
def _lab(colour: Colour, vision: str | None) -> Colour:
    linear = _linear(colour)
    if vision is not None:
        red, green, blue = (min(1.0, max(0.0, value)) for value in _product(VISIONS[vision], linear))
        linear = (red, green, blue)
    x, y, z = (_root(value / full) for value, full in zip(_product(_TO_XYZ, linear), _WHITE, strict=True))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _root(value: float) -> float:
    """CIELAB's cube root, straight near black."""
    small = 6 / 29
    return math.cbrt(value) if value > small**3 else value / (3 * small**2) + 4 / 29


def _linear(colour: Colour) -> Colour:
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour)
    return red, green, blue


def _product(matrix: Matrix, colour: Colour) -> Colour:
    x, y, z = (sum(factor * value for factor, value in zip(row, colour, strict=True)) for row in matrix)
    return x, y, z
