"""The look of methods in figures, determined by their names, in every figure of a report.

The rules, from the most to the least visible property:

- A registered method has its colour and marker from `KNOWN`: Okabe and Ito's colour-blind-safe palette, with black and
  grey for the bounds, and markers that also work in greyscale.
- Any other method's look depends on a hash of its name: any hue, in one of three lightnesses visible on white, and one
  of `MARKERS`. Only if two in a report are too similar, the one later in the alphabet takes the next marker.
- A variant, or a sweep's own name for a method, has the method's colour and marker, but the marker is open and the
  dashes depend on a hash of its name. Only if two of one method in a report have the same dashes, the later takes
  another colour.
- Scales of a method are shades of a colour, from dark to light, by their size among those in the report.
"""

from __future__ import annotations

import colorsys
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import pandas as pd
from matplotlib.colors import to_rgb

from orchestrator.report import fonts

Colour: TypeAlias = tuple[float, float, float]
Dashes: TypeAlias = str | tuple[int, tuple[float, ...]]
Names: TypeAlias = tuple[str, str, str, str]
"""What is drawn: the registry's name of the method; the sweep's names of method, variant and scale."""

KNOWN: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "neuromodnet": ("#0072b2", "o"),
        "flynet": ("#d55e00", "s"),
        "supsup": ("#009e73", "v"),
        "batche": ("#e69f00", "^"),
        "psp": ("#cc79a7", "D"),
        "mtl": ("#000000", "P"),
        "stl": ("#7f7f7f", "X"),
    }
)
"""Colour and marker by a method's name in the registry."""

MARKERS = ("o", "s", "v", "^", "D", "P", "X", "*", "h", "<", ">", "p")

LUMINANCES = (0.08, 0.16, 0.28)
"""Of colours that follow from a name; white has 1, against which the lightest has a contrast of 3 to 1."""

DASHES: tuple[Dashes, ...] = (
    "-",
    "--",
    ":",
    "-.",
    (0, (9, 2.5)),
    (0, (4, 1.5, 1, 1.5, 1, 1.5)),
    (0, (1.5, 4)),
)
"""Solid for a method as it is; the others for its variants."""

ALIKE = 0.3
"""The distance between two colours, as red, green and blue in [0, 1], below which they are taken for one."""

NUM_TRIES, CROWD = 50, 60
"""Colours tried for a variant whose dashes others have, and how many others: among more, no colour is unlike all."""

LIGHTEST = 0.5
"""How far the last scale of a method is on the way from its colour to white."""


@dataclass(frozen=True, slots=True)
class Look:
    """The look of a line, without its label.

    Attributes:
        colour: red, green and blue in [0, 1].
        marker: the marker in matplotlib's notation.
        face: the marker's fill colour.
        dashes: the line style in matplotlib's notation.
    """

    colour: Colour
    marker: str
    face: Any
    dashes: Dashes


@dataclass(frozen=True, slots=True)
class Line:
    """The look of a cell's line, see `Look`.

    Attributes:
        label: the label in the legend.
    """

    label: str
    colour: Colour
    marker: str
    face: Any
    dashes: Dashes

    @property
    def look(self) -> dict[str, Any]:
        """Arguments for matplotlib, without the label, since matplotlib hides labels that begin with `_`."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": self.face,
            "linestyle": self.dashes,
        }


def style(kind: str) -> tuple[str | Colour, str]:
    """A method's colour and marker, which depend only on its name."""
    if kind in KNOWN:
        return KNOWN[kind]
    numbers = _hash(kind)
    hue = int.from_bytes(numbers[:2], "big") / 2**16
    return _colour(hue, LUMINANCES[numbers[2] % len(LUMINANCES)]), MARKERS[numbers[3] % len(MARKERS)]


def palette(names: Iterable[Names]) -> dict[Names, Look]:
    """The looks of everything a report draws; all methods and variants are distinct.

    Args:
        names: the names of everything in the report, in any order.
    """
    rows = set(names)
    named: dict[str, set[tuple[str, str]]] = {}
    scales: dict[str, set[str]] = {}
    for kind, method, variant, scale in rows:
        named.setdefault(kind, set()).add((method, variant))
        scales.setdefault(kind, set()).add(scale)
    families = _families(named)
    versions = {kind: _versions(found, kind, families[kind]) for kind, found in named.items()}
    orders = {kind: sorted(found, key=_by_size) for kind, found in scales.items()}
    looks = {}
    for kind, method, variant, scale in rows:
        look = versions[kind][method, variant]
        order = orders[kind]
        shade = _lighter(look.colour, LIGHTEST * order.index(scale) / max(1, len(order) - 1))
        face = shade if look.face == look.colour else look.face
        looks[kind, method, variant, scale] = Look(shade, look.marker, face, look.dashes)
    return looks


def lines(
    cells: pd.DataFrame, kinds: Mapping[str, str], looks: Mapping[Names, Look] | None = None
) -> dict[tuple[str, str, str], Line]:
    """The lines of a table's cells, by method, variant and scale.

    Args:
        cells: the columns of `aggregate.CELL`, in the table's order.
        kinds: the result of `series.kinds`.
        looks: the result of `palette` over the whole report; by default over these cells.
    """
    rows = list(cells[["method", "variant", "scale"]].drop_duplicates().itertuples(index=False, name=None))
    names = {row: (kinds.get(row[0], row[0]), *row) for row in rows}
    looks = palette(names.values()) if looks is None else looks
    labels = _labels(rows)
    found = {}
    for row in rows:
        look = looks[names[row]]
        found[row] = Line(labels[row], look.colour, look.marker, look.face, look.dashes)
    return found


def _families(kinds: Iterable[str]) -> dict[str, Look]:
    """The look of each method without variants; distinct also from all of `KNOWN`."""
    found = {kind: _filled(to_rgb(colour), marker, DASHES[0]) for kind, (colour, marker) in KNOWN.items()}
    colours: dict[tuple[str, Dashes], list[Colour]] = {}
    for look in found.values():
        colours.setdefault((look.marker, look.dashes), []).append(look.colour)
    for kind in sorted(set(kinds) - KNOWN.keys()):
        own, first = style(kind)
        colour, start = to_rgb(own), MARKERS.index(first)
        ways = [(marker, dashes) for dashes in DASHES for marker in MARKERS[start:] + MARKERS[:start]]
        marker, dashes = next((way for way in ways if _is_free(colour, colours.get(way, ()))), ways[0])
        colours.setdefault((marker, dashes), []).append(colour)
        found[kind] = _filled(colour, marker, dashes)
    return found


def _versions(versions: Iterable[tuple[str, str]], kind: str, family: Look) -> dict[tuple[str, str], Look]:
    """The looks of a method's variants and of sweeps' own names for it, by name and variant."""
    found: dict[tuple[str, str], Look] = {}
    colours: dict[Dashes, list[Colour]] = {}
    for method, variant in sorted(versions):
        if not variant and re.sub("[^a-z0-9]", "", method.lower()) == re.sub("[^a-z0-9]", "", kind.lower()):
            found[method, variant] = family
            continue
        name = f"{method}\n{variant}"
        dashes = DASHES[1:][_hash(name)[0] % len(DASHES[1:])]
        taken = colours.setdefault(dashes, [])
        others = (to_rgb(style(f"{name}\n{number}")[0]) for number in range(NUM_TRIES if len(taken) < CROWD else 1))
        colour = family.colour if not taken else next((other for other in others if _is_free(other, taken)), None)
        colour = colour or to_rgb(style(name)[0])
        taken.append(colour)
        found[method, variant] = Look(colour, family.marker, "white", dashes)
    return found


def _filled(colour: Colour, marker: str, dashes: Dashes) -> Look:
    return Look(colour, marker, colour, dashes)


def _is_free(colour: Colour, taken: Iterable[Colour]) -> bool:
    return all(math.dist(colour, other) >= ALIKE for other in taken)


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()


def _colour(hue: float, luminance: float) -> Colour:
    """A vivid colour of a hue in [0, 1) and a relative luminance, as WCAG defines it."""
    low, high = 0.0, 1.0
    for _ in range(20):  # lightness by bisection: luminance grows with it
        middle = (low + high) / 2
        colour = colorsys.hls_to_rgb(hue, middle, 0.85)
        low, high = (middle, high) if _luminance(colour) < luminance else (low, middle)
    return colour


def _luminance(colour: Colour) -> float:
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _lighter(colour: Colour, share: float) -> Colour:
    red, green, blue = (value + share * (1 - value) for value in colour)
    return red, green, blue


def _by_size(scale: str) -> list[tuple[str, int, str]]:
    """A sort key that puts FC256 before FC1024."""
    pieces = re.findall(r"([^0-9]+|^)([0-9]*)", scale)
    return [(text, len(number.lstrip("0")), number) for text, number in pieces]


def _labels(rows: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """The labels of cells in a figure, all distinct."""
    found: dict[tuple[str, str, str], str] = {}
    for row in rows:
        parts = [part for part in row if part]
        candidates = [" ".join(parts), " | ".join(parts)]
        candidates += [f"({number}) {' '.join(parts)}" for number in range(2, len(found) + 3)]
        taken = set(found.values())
        found[row] = next(shown for text in candidates if (shown := fonts.label(text)) not in taken)
    return found
