"""Looks depend on names, and are the same in every figure of a report, for any number of methods."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from crwn.methods import METHODS
from orchestrator.report import colours, looks
from orchestrator.report.looks import Look, Names


def key(look: Look) -> tuple[object, ...]:
    """What is seen of a look, aside from the inside of its markers."""
    return (look.colour, look.marker, look.dashes)


def plain(kind: str) -> Names:
    """A method as it is, at one scale."""
    return (kind, kind, "", "FC256")


def test_a_look_that_is_written_down_is_of_a_method_of_the_registry() -> None:
    """A new method gets a look from its name until one is chosen."""
    assert looks.KNOWN.keys() <= METHODS.keys()
    assert looks.KNOWN["neuromodnet"] == ("#0072b2", "o")


@pytest.mark.parametrize("number", [0, 1, 9, 10, 50, 200])
def test_any_number_of_methods_is_told_apart(number: int) -> None:
    """Also together with all known ones: those with the same marker and line have distinguishable colours."""
    names = [*map(plain, looks.KNOWN), *(plain(f"method {index}") for index in range(number))]
    found = looks.palette(names)
    assert len({key(look) for look in found.values()}) == len(names)
    for one, other in itertools.combinations(found.values(), 2):
        if (one.marker, one.dashes) == (other.marker, other.dashes):
            assert colours.distance(one.colour, other.colour) >= looks.ALIKE


@pytest.mark.parametrize("number", [1, 9, 10, 50, 200])
def test_any_number_of_variants_is_told_apart(number: int) -> None:
    """Of one method: variants, and a sweep's own names for it."""
    names: list[Names] = [("psp", "psp", f"{index}", "FC256") for index in range(number)]
    names += [("psp", f"own {index}", "", "FC256") for index in range(number)]
    found = looks.palette([plain("psp"), *names])
    assert len({key(look) for look in found.values()}) == 2 * number + 1
    assert {look.face for name, look in found.items() if name in names} == {"white"}
    assert {look.marker for look in found.values()} == {"D"}


def test_variants_of_the_only_method_have_colours_of_their_own() -> None:
    """Each differs from the others and the method; if the report has another method, they have the method's colour."""
    variants: list[Names] = [("psp", "psp", name, "FC256") for name in ("best single", "hybrid", "stable", "f = 1")]
    found = looks.palette([plain("psp"), *variants])
    for one, other in itertools.combinations(found.values(), 2):
        assert colours.distance(one.colour, other.colour) >= looks.ALIKE
    beside = looks.palette([plain("psp"), plain("supsup"), variants[0]])
    assert beside[variants[0]].colour == beside[plain("psp")].colour


def test_a_look_hangs_on_the_name_alone() -> None:
    """Not on the order or number of others, unless two collide."""
    names = [plain(f"method {index}") for index in range(40)]
    names += [("psp", "psp", f"variant {index}", "FC256") for index in range(3)]
    found = looks.palette(names)
    assert looks.palette(reversed(names)) == found
    alone = [found[name] == looks.palette([name])[name] for name in names]
    assert sum(alone) > 0.7 * len(names)
    assert looks.style("method 7") == looks.style("method 7")


@pytest.mark.parametrize("number", range(2, 31))
def test_methods_have_colours_that_stand_out_on_white_and_apart(number: int) -> None:
    """Also for colour-blind readers; beyond the palette's size, markers and lines distinguish those of one colour."""
    found = looks.palette(plain(kind) for kind in [*METHODS, *(f"method {index}" for index in range(30))][:number])
    shown = {look.colour for look in found.values()}
    assert len(shown) == min(number, len(colours.PALETTE))
    assert len({key(look) for look in found.values()}) == number
    for colour in shown:
        assert colours.contrast(colour) >= colours.CONTRAST
    for one, other in itertools.combinations(shown, 2):
        assert colours.distance(one, other) >= colours.APART
        for vision in colours.VISIONS:
            assert colours.distance(one, other, vision) >= colours.APART_UNSEEN


def test_colours_are_measured_as_elsewhere() -> None:
    """Values of CIELAB that are published: white to black, red to green and blue."""
    white, red, green, blue = (1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    assert colours.distance(white, (0.0, 0.0, 0.0)) == pytest.approx(100, abs=0.01)
    assert colours.distance(red, green) == pytest.approx(170.6, abs=0.1)
    assert colours.distance(red, blue) == pytest.approx(176.3, abs=0.1)
    assert colours.distance(red, green, "deuteranopia") < 80
    assert colours.contrast(blue) == pytest.approx(8.59, abs=0.01)
    assert colours.contrast(white) == pytest.approx(1, abs=1e-5)


def test_variants_and_scales_stand_out_on_white() -> None:
    """Also where colours of the palette do not suffice, and in the lightest shade."""
    names: list[Names] = [("psp", "psp", f"{index}", "FC256") for index in range(200)]
    names += [(kind, kind, "", f"FC{scale}") for kind in METHODS for scale in (10, 100, 1000)]
    assert min(colours.contrast(look.colour) for look in looks.palette(names).values()) > 2.99


def test_a_methods_name_in_other_letters_is_the_method() -> None:
    """A paper's spelling of a method's name is not a variant."""
    found = looks.palette([("neuromodnet", "NeuroModNet", "", "FC256"), plain("neuromodnet")])
    assert len(set(found.values())) == 1


def test_scales_are_shades_by_their_size() -> None:
    """The smallest has the method's colour, larger ones are darker, whatever the order and however many digits."""
    scales = ["FC1024", "FC256", "nf8", "FC" + "9" * 5000, "FC0256", "odd²"]
    found = looks.palette([("psp", "psp", "", scale) for scale in scales])
    dark = sorted(scales, key=lambda scale: -sum(found["psp", "psp", "", scale].colour))
    assert found["psp", "psp", "", dark[0]].colour == to_rgb(looks.KNOWN["psp"][0])
    assert dark == ["FC0256", "FC256", "FC1024", "FC" + "9" * 5000, "nf8", "odd²"]
    assert all(look.face == look.colour for look in found.values())


def test_no_two_lines_are_called_the_same() -> None:
    """Names that read the same put together, and such as are shortened to the same."""
    rows = [
        ("a b", "", "F"),
        ("a", "b", "F"),
        ("a", "b F", ""),
        ("a", "", "b F"),
        ("x" * 200 + "1" + "x" * 200, "", "F"),
    ]
    rows += [("x" * 200 + "2" + "x" * 200, "", "F")]
    cells = pd.DataFrame(rows, columns=["method", "variant", "scale"])
    labels = [line.label for line in looks.lines(cells, {}).values()]
    assert len(set(labels)) == len(rows)
    assert labels[0] == "a b F"
    assert all(len(line) <= 30 and label.count("\n") < 3 for label in labels for line in label.split("\n"))
