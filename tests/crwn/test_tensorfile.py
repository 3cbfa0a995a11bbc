"""Tensors with a JSON header as bytes."""

from __future__ import annotations

import json
import pickle

import pytest
import safetensors.torch
import torch

from crwn import tensorfile
from crwn.faults import InvalidError
from tests.refusals import refused

TENSORS = {
    "float": torch.tensor([[1.5, -0.0], [float("inf"), 3e-39]]),
    "double": torch.tensor([1 / 3], dtype=torch.float64),
    "bytes": torch.arange(3, dtype=torch.uint8),
    "number": torch.tensor(7.0),
    "empty": torch.zeros(0, 4),
}
HEADER = {"b": [1, None, "ü"], "a": {"x": 0.1, "flag": True}}


def file_with(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def envelope_of(content: bytes) -> dict[str, object]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["crwn"])


def test_what_was_written_is_read() -> None:
    """Tensors of several types and shapes, and a nested header, come back bit for bit."""
    tensors, header = tensorfile.parse(tensorfile.dump(TENSORS, HEADER))
    assert header == HEADER
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert tensors[name].numpy().tobytes() == tensor.numpy().tobytes()


def test_equal_content_gives_equal_bytes() -> None:
    """The order in which tensors and header entries were put in leaves no trace."""
    one = tensorfile.dump(TENSORS, HEADER)
    other = tensorfile.dump(dict(reversed(TENSORS.items())), dict(reversed(HEADER.items())))
    assert one == other
    assert one != tensorfile.dump(TENSORS, {**HEADER, "b": 2})
    assert one != tensorfile.dump({**TENSORS, "number": torch.tensor(8.0)}, HEADER)


def test_layout_and_gradients_leave_no_trace() -> None:
    """A transposed view and a tensor that requires a gradient are written as their numbers."""
    matrix = torch.arange(6.0).reshape(2, 3)
    plain = tensorfile.dump({"x": matrix.T.clone(memory_format=torch.contiguous_format)}, {})
    assert tensorfile.dump({"x": matrix.T}, {}) == plain
    assert tensorfile.dump({"x": matrix.T.clone().requires_grad_()}, {}) == plain


def test_a_file_may_hold_a_header_alone() -> None:
    """No tensors at all are a file like any other."""
    assert tensorfile.parse(tensorfile.dump({}, {"a": 1})) == ({}, {"a": 1})


def test_other_programs_can_read_a_file() -> None:
    """It is a safetensors file, whose one entry of metadata is JSON with the header in it."""
    content = tensorfile.dump(TENSORS, HEADER)
    tensors = safetensors.torch.load(content)
    assert set(tensors) == set(TENSORS)
    assert torch.equal(tensors["double"], TENSORS["double"])
    assert envelope_of(content)["header"] == HEADER


def test_a_number_that_json_cannot_say_is_refused() -> None:
    """A header with NaN would give a file that other programs cannot read."""
    with pytest.raises(ValueError, match="JSON"):
        tensorfile.dump({}, {"loss": float("nan")})


def test_a_file_cut_off_anywhere_is_refused() -> None:
    """Every proper beginning of a file raises ValueError."""
    content = tensorfile.dump(TENSORS, HEADER)
    for length in range(len(content)):
        with refused(InvalidError, "not-tensors"):
            tensorfile.parse(content[:length])


def test_a_flipped_bit_anywhere_is_refused() -> None:
    """In the numbers, in the header, in the names: no bit of the file can change unnoticed."""
    content = tensorfile.dump(TENSORS, {"step": 10, "names": ["a", "b"], "loss": 0.125})
    for place in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(InvalidError) as caught:
            tensorfile.parse(bytes(damaged))
        assert caught.value.codes in {("not-tensors",), ("content-changed",)}


@pytest.mark.parametrize("change", ["number", "name", "type", "shape", "missing", "header"])
def test_content_that_was_exchanged_is_refused(change: str) -> None:
    """A file put together from parts of two files parses, and is still found not to be what was written."""
    original = {"x": torch.ones(2, 3), "y": torch.zeros(3)}
    tensors, header = dict(original), {"step": 1}
    match change:
        case "number":
            tensors["x"] = torch.full((2, 3), 2.0)
        case "name":
            tensors["z"] = tensors.pop("y")
        case "type":
            tensors["y"] = torch.zeros(3, dtype=torch.int32)
        case "shape":
            tensors["x"] = torch.ones(3, 2)
        case "missing":
            del tensors["y"]
        case "header":
            header = {"step": 2}
    envelope = {**envelope_of(tensorfile.dump(original, {"step": 1})), "header": header}
    text = json.dumps(envelope, sort_keys=True, separators=(",", ":"))
    exchanged = safetensors.torch.save(tensors, metadata={"crwn": text})
    with refused(InvalidError, "content-changed"):
        tensorfile.parse(exchanged)


def test_a_digit_that_changes_no_number_is_seen_too() -> None:
    """Seventeen digits may name a number in two ways; only the one that was written is taken."""
    content = tensorfile.dump({}, {"loss": 0.1 + 0.2})
    assert b"0.30000000000000004" in content
    altered = content.replace(b"0.30000000000000004", b"0.30000000000000005")
    assert json.loads("0.30000000000000005") == 0.1 + 0.2
    with refused(InvalidError, "content-changed"):
        tensorfile.parse(altered)


def hostile(tensor: object, data: bytes = b"") -> bytes:
    """A file with a good envelope and a description of one tensor that is not true."""
    return file_with({"__metadata__": {"crwn": '{"header":{},"sha256":""}'}, "x": tensor}, data)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 64,
        b"not a tensor file at all",
        file_with(b"\xff\xfe\x00"),
        file_with(b"[" * 100_000),
        file_with([1, 2]),
        file_with("text"),
        file_with(7),
        file_with({}),
        file_with({"__metadata__": None}),
        file_with({"__metadata__": {"other": "{}"}}),
        file_with({"__metadata__": {"crwn": 7}}),
        file_with({"__metadata__": {"crwn": "not json"}}),
        file_with({"__metadata__": {"crwn": "[" * 100_000}}),
        file_with({"__metadata__": {"crwn": "[1]"}}),
        file_with({"__metadata__": {"crwn": "7"}}),
        file_with({"__metadata__": {"crwn": "{}"}}),
        file_with({"__metadata__": {"crwn": '{"header":{}}'}}),
        file_with({"__metadata__": {"crwn": '{"header":7,"sha256":""}'}}),
        file_with({"__metadata__": {"crwn": '{"header":{},"sha256":7}'}}),
        file_with({"__metadata__": {"crwn": '{"header":{},"sha256":""}'}}, b"trailing"),
        hostile({"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}, b"abcd"),
        hostile({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, b"abcd"),
        hostile({"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}, b"abcd"),
        hostile({"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}, b"a"),
        hostile({"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}, b"abcd"),
        hostile({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, b"abcd"),
        hostile("text"),
        (2**63).to_bytes(8, "little") + b"{}",
    ],
    ids=lambda content: repr(content[8:60]),
)
def test_hostile_bytes_are_refused(content: bytes) -> None:
    """Whatever the bytes are, the answer is a ValueError that says what was expected."""
    with pytest.raises(InvalidError) as caught:
        tensorfile.parse(content)
    assert caught.value.codes in {("not-tensors",), ("content-changed",)}


def test_nothing_in_a_file_is_run() -> None:
    """A pickle, which could run code, is refused like any other bytes."""
    with refused(InvalidError, "not-tensors"):
        tensorfile.parse(pickle.dumps({"x": TENSORS}))
