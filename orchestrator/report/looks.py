"""The look of methods in figures, determined by their names, in every figure of a report.

The rules, from the most to the least visible property:

- A registered method has its colour and marker from `KNOWN`: colours of `colours.PALETTE`, and markers that also work
  in greyscale.
- Any other method takes a colour of the palette and a marker by a hash of its name. If another method of the report has
  the colour, the one later in the alphabet takes the next free colour; once all are taken, the next free marker.
- A variant, or a sweep's own name for a method, has the method's colour and marker, but the marker is open and the
  dashes depend on a hash of its name. Only if two of one method in a report have the same dashes, the later takes
  another colour.
- In a report of a single method with several variants, these have their own colours by their names, distinct as far as
  possible: nothing else needs to be distinguished by colour.
- Scales of a method are shades of its colour, by their size among those in the report: the smallest has the colour
  itself, larger ones are darker, or lighter where it is dark. None is so light that it is lost on white.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import pandas as pd
from matplotlib.colors import to_rgb

from orchestrator.report import colours, fonts
from orchestrator.report.colours import Colour

Marker: TypeAlias = str | tuple[int, int, int]
Dashes: TypeAlias = str | tuple[int, tuple[float, ...]]
Names: TypeAlias = tuple[str, str, str, str]
"""What is drawn: the registry's name of the method; the sweep's names of method, variant and scale."""

_Item = TypeVar("_Item")

KNOWN: Mapping[str, tuple[str, Marker]] = MappingProxyType(
    {
        "neuromodnet": ("#0072b2", "o"),
        "flynet": ("#d55e00", "s"),
        "supsup": ("#1e693c", "v"),
        "batche": ("#784b00", "^"),
        "psp": ("#e15ae1", "D"),
        "mtl": ("#000000", "P"),
        "stl": ("#b47878", "X"),
        "finetune": ("#d21e4b", "<"),
        "joint": ("#3c2d78", ">"),
        "er": ("#0096a5", "*"),
        "derpp": ("#4b0096", "h"),
        "ewc": ("#3ca52d", "p"),
        "si": ("#690000", "d"),
        "lwf": ("#0069f0", "8"),
        "agem": ("#b41e78", (4, 1, 45)),
    }
)
"""Colour and marker by a method's name in the registry."""

MARKERS: tuple[Marker, ...] = (
    *("o", "s", "v", "^", "D", "P", "X", "*", "h", "<", ">", "p", "d", "8"),
    (4, 1, 45),
)
"""Markers in matplotlib's notation; the last is a four-pointed star."""

LUMINANCES = (0.08, 0.16, 0.28)
"""Of colours beyond the palette; white has 1, against which the lightest has a contrast of 3 to 1."""

DASHES: tuple[Dashes, ...] = (
    "-",
    "--",
    ":",
    "-.",
    (0, (9, 2.5)),
    (0, (4, 1.5, 1, 1.5, 1, 1.5)),
    (0, (1.5, 4)),
)
"""Solid for the method itself; the others for its variants."""

ALIKE = 20.0
"""The distance between two colours (`colours.distance`) below which they count as equal."""

NUM_TRIES, CROWD = 50, 60
"""Colours tried for a variant whose dashes are taken, and the largest number of others that its colour must avoid."""


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
    marker: Marker
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
    marker: Marker
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


def style(kind: str) -> tuple[str, Marker]:
    """A method's colour and marker, which depend only on its name."""
    if kind in KNOWN:
        return KNOWN[kind]
    numbers = _hash(kind)
    return colours.PALETTE[numbers[0] % len(colours.PALETTE)], MARKERS[numbers[3] % len(MARKERS)]


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
    is_alone = len(named) == 1
    versions = {kind: _versions(found, kind, families[kind], coloured=is_alone) for kind, found in named.items()}
    orders = {kind: sorted(found, key=_by_size) for kind, found in scales.items()}
    looks = {}
    for kind, method, variant, scale in rows:
        look = versions[kind][method, variant]
        order = orders[kind]
        shade = colours.shades(look.colour, len(order))[order.index(scale)]
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
    """The look of each method without variants; distinct."""
    present = set(kinds)
    found = {kind: _filled(to_rgb(KNOWN[kind][0]), KNOWN[kind][1], DASHES[0]) for kind in present & KNOWN.keys()}
    taken = {(look.colour, look.marker, look.dashes) for look in found.values()}
    for kind in sorted(present - KNOWN.keys()):
        own, marker = style(kind)
        own_colours = _from(colours.palette(), to_rgb(own))
        used = {colour for colour, _, _ in taken}
        free = [colour for colour in own_colours if colour not in used] or own_colours[:1]
        ways = ((free[0], other, dashes) for dashes in DASHES for other in _from(MARKERS, marker))
        way = next((way for way in ways if way not in taken), (free[0], marker, DASHES[0]))
        taken.add(way)
        found[kind] = _filled(*way)
    return found


def _versions(
    versions: Collection[tuple[str, str]], kind: str, family: Look, *, coloured: bool
) -> dict[tuple[str, str], Look]:
    """The looks of a method's variants and of sweeps' own names for it, by name and variant.

    Args:
        versions: the names and variants.
        kind: the method.
        family: the look of the method itself.
        coloured: whether each of several has a colour of its own, as far as there are such colours.
    """
    found: dict[tuple[str, str], Look] = {}
    used = [family.colour]
    coloured = coloured and sum(not _is_itself(one, kind) for one in versions) > 1
    shown: dict[Dashes, list[Colour]] = {}
    for method, variant in sorted(versions):
        if _is_itself((method, variant), kind):
            found[method, variant] = family
            continue
        name = f"{method}\n{variant}"
        dashes = DASHES[1:][_hash(name)[0] % len(DASHES[1:])]
        taken = shown.setdefault(dashes, [])
        if coloured and len(used) < len(colours.PALETTE):
            colour = _unlike(used, name)
        else:
            colour = family.colour if not taken else _unlike(taken, name)
        taken.append(colour)
        used.append(colour)
        found[method, variant] = Look(colour, family.marker, "white", dashes)
    return found


def _is_itself(version: tuple[str, str], kind: str) -> bool:
    """Whether a name and variant are the method as it is, in whatever letters."""
    method, variant = version
    return not variant and re.sub("[^a-z0-9]", "", method.lower()) == re.sub("[^a-z0-9]", "", kind.lower())


def _unlike(taken: Sequence[Colour], name: str) -> Colour:
    """A colour by a name that is like none of others: one of the palette, or, if all are taken, of any hue."""
    own = _from(colours.palette(), to_rgb(colours.PALETTE[_hash(name)[0] % len(colours.PALETTE)]))
    more = (_of_any_hue(f"{name}\n{number}") for number in range(NUM_TRIES if len(taken) < CROWD else 0))
    return next((other for other in (*own, *more) if _is_free(other, taken)), None) or _of_any_hue(name)


def _of_any_hue(name: str) -> Colour:
    numbers = _hash(name)
    hue = int.from_bytes(numbers[:2], "big") / 2**16
    return colours.hue_at(hue, LUMINANCES[numbers[2] % len(LUMINANCES)])


def _from(items: Sequence[_Item], first: _Item) -> list[_Item]:
    """Items in their order, from one of them round to the one before it."""
    start = items.index(first)
    return [*items[start:], *items[:start]]


def _filled(colour: Colour, marker: Marker, dashes: Dashes) -> Look:
    return Look(colour, marker, colour, dashes)


def _is_free(colour: Colour, taken: Iterable[Colour]) -> bool:
    return all(colours.distance(colour, other) >= ALIKE for other in taken)


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()


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
