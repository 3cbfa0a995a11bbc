"""Frozen weights: their distributions, their memory, and the fingerprint that goes with them."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from crwn.backbone import ALIGNMENT, ArraySpec, Backbone, BackboneSpec, draw, fingerprint
from crwn.faults import InvalidError
from tests.refusals import refused

NORMAL = ArraySpec(name="a", shape=(3, 5), distribution="normal", parameter=0.5)
SIGNS = ArraySpec(name="b", shape=(2, 7), distribution="signed-constant", parameter=0.25)
SUBSET = ArraySpec(name="c", shape=(4, 9), distribution="subset", parameter=2)
SMALL = BackboneSpec(seed=3, arrays=(NORMAL, SIGNS, SUBSET))


def draw_one(distribution: str, shape: tuple[int, int], parameter: float, seed: int = 0) -> np.ndarray:
    array = ArraySpec(name="array", shape=shape, distribution=distribution, parameter=parameter)
    return draw(BackboneSpec(seed=seed, arrays=(array,))).arrays["array"]


def test_normal_arrays_have_the_deviation_asked_for() -> None:
    """Mean 0, standard deviation s, kurtosis 3: of n numbers within five of their sampling deviations.

    These are s/sqrt(n), s/sqrt(2n) and sqrt(24/n).
    """
    numbers = draw_one("normal", (300, 700), 0.3).astype(np.float64)
    num = numbers.size
    assert abs(numbers.mean()) < 5 * 0.3 / num**0.5
    assert abs(numbers.std() - 0.3) < 5 * 0.3 / (2 * num) ** 0.5
    assert abs(((numbers / numbers.std()) ** 4).mean() - 3) < 5 * (24 / num) ** 0.5


def test_signed_constants_are_one_magnitude_in_both_signs() -> None:
    """Only +m and -m, rounded alike to float32, each about half of the time: within five deviations of sqrt(n)/2."""
    numbers = draw_one("signed-constant", (300, 700), (2 / 784) ** 0.5)
    magnitude = np.float32((2 / 784) ** 0.5)
    assert set(np.unique(numbers)) == {-magnitude, magnitude}
    assert abs((numbers > 0).sum() - numbers.size / 2) < 5 * numbers.size**0.5 / 2


def test_subsets_have_exactly_k_ones_in_every_row() -> None:
    """Zeros and ones; each row has k ones, and each column is as likely: n k/d ones, binomial, within five deviations.

    Rows differ: with 78 of 784 columns two equal ones would be a fault of the generator.
    """
    num_rows, num_columns, num_ones = 2000, 784, 78
    numbers = draw_one("subset", (num_rows, num_columns), num_ones)
    assert set(np.unique(numbers)) == {0.0, 1.0}
    assert (numbers.sum(axis=1) == num_ones).all()
    share = num_ones / num_columns
    deviation = (num_rows * share * (1 - share)) ** 0.5
    assert np.abs(numbers.sum(axis=0) - num_rows * share).max() < 5 * deviation
    assert len(np.unique(numbers, axis=0)) == num_rows


@pytest.mark.parametrize("spec", [NORMAL, SIGNS, SUBSET], ids=lambda spec: spec.distribution)
def test_arrays_are_float32_read_only_and_aligned(spec: ArraySpec) -> None:
    """Frozen weights cannot be written, and their alignment makes products round alike everywhere."""
    arrays = draw(BackboneSpec(seed=0, arrays=tuple(dataclasses.replace(spec, name=f"{n}") for n in range(5)))).arrays
    for array in arrays.values():
        assert array.dtype == np.float32
        assert array.shape == spec.shape
        assert array.flags.c_contiguous
        assert array.ctypes.data % ALIGNMENT == 0
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


def test_frozen_weights_never_change_by_accident() -> None:
    """A backbone with an array of each distribution has the fingerprint it has on every machine."""
    assert draw(SMALL).fingerprint == "5a9999ef83058e2f848c9bff1ba439bc9405107242185c5fcdbf58077144f82c"


def test_equal_specs_give_equal_bytes() -> None:
    """Drawing twice gives the same arrays, and an array does not depend on the others."""
    one, other = draw(SMALL), draw(dataclasses.replace(SMALL, arrays=(SUBSET, NORMAL)))
    assert draw(SMALL).fingerprint == one.fingerprint
    for name, array in other.arrays.items():
        assert np.array_equal(array, one.arrays[name])


def test_seed_and_name_change_the_numbers() -> None:
    """Another seed is another network, and two layers of one shape and distribution are not the same layer."""
    layers = tuple(dataclasses.replace(NORMAL, name=name) for name in ("layer1", "layer2"))
    drawn = [draw(BackboneSpec(seed=seed, arrays=layers)) for seed in (0, 1)]
    arrays = {array.tobytes() for backbone in drawn for array in backbone.arrays.values()}
    assert len(arrays) == 4
    assert drawn[0].fingerprint != drawn[1].fingerprint


def test_the_fingerprint_is_a_hash_of_names_types_shapes_and_bytes() -> None:
    """Computed here from the written-out content, in the order of the names."""
    arrays = {"b": np.array([[1, 2, 3]], dtype=np.float32), "a": np.array([[4], [5]], dtype=np.float32)}
    text = b"a <f4 (2, 1)\n" + arrays["a"].tobytes() + b"b <f4 (1, 3)\n" + arrays["b"].tobytes()
    assert fingerprint(arrays) == hashlib.sha256(text).hexdigest()


def test_the_fingerprint_knows_no_order_of_arrays_or_memory() -> None:
    """The same arrays in another order, or laid out by columns, are the same backbone."""
    arrays = dict(draw(SMALL).arrays)
    turned = {name: np.asfortranarray(array) for name, array in reversed(arrays.items())}
    assert not turned["a"].flags.c_contiguous
    assert fingerprint(turned) == fingerprint(arrays)


@pytest.mark.parametrize("change", ["bit", "name", "shape", "type", "swap", "missing"])
def test_the_fingerprint_sees_every_change(change: str) -> None:
    """A flipped bit, another name, shape or type, two arrays mixed up, one left out."""
    original = {name: array.copy() for name, array in draw(SMALL).arrays.items()}
    arrays = dict(original)
    match change:
        case "bit":
            arrays["a"].view(np.uint32)[2, 4] ^= 1
            original = dict(draw(SMALL).arrays)
        case "name":
            arrays["d"] = arrays.pop("a")
        case "shape":
            arrays["a"] = arrays["a"].reshape(5, 3)
        case "type":
            arrays["a"] = arrays["a"].view(np.int32)
        case "swap":
            arrays["a"], arrays["b"] = arrays["b"], arrays["a"]
        case "missing":
            del arrays["c"]
    assert fingerprint(arrays) != fingerprint(original)


def test_a_backbone_is_checked_where_it_is_used() -> None:
    """Drawn arrays pass; arrays that were changed in transit are refused."""
    backbone = draw(SMALL)
    assert backbone.checked() is backbone
    changed = {**backbone.arrays, "a": backbone.arrays["a"] + np.float32(1e-3)}
    with refused(InvalidError, "backbone-changed", says=backbone.fingerprint):
        Backbone(arrays=changed, fingerprint=backbone.fingerprint).checked()


def test_the_size_is_known_before_drawing() -> None:
    """Four bytes a number."""
    assert SMALL.num_bytes == sum(array.nbytes for array in draw(SMALL).arrays.values()) == 4 * (15 + 14 + 36)
