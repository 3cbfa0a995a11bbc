"""The codes of a method that a user accepts as equivalent, and the file that records them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.store import verifying
from orchestrator.store.accepted import NOTHING, Accepted
from orchestrator.store.json_fields import sealed_bytes
from orchestrator.store.schemas import ACCEPTED_FILE
from orchestrator.store.store import Store

A, B, C, D = (digit * 16 for digit in "abcd")


def test_what_is_accepted_counts_as_one() -> None:
    """Of its method alone; whatever shares a code joins, and what is said twice is said once."""
    accepted = NOTHING.adding("ewc", codes=[A, B]).adding("ewc", codes=[C, D], results_versions=[1, 2])
    assert accepted.codes("ewc", A) == {A, B}
    assert accepted.codes("ewc", "e" * 16) == {"e" * 16}
    assert accepted.codes("si", A) == {A}
    assert (accepted.results_versions("ewc", 2), accepted.results_versions("ewc", 3)) == ({1, 2}, {3})
    joined = accepted.adding("ewc", codes=[B, C])
    assert joined.codes("ewc", D) == {A, B, C, D}
    assert joined.results_versions("ewc", 1) == {1, 2}
    assert joined.adding("ewc", codes=[D, A]) == joined


def test_one_code_is_nothing_to_accept() -> None:
    """One code is equivalent to itself anyway."""
    assert NOTHING.adding("ewc", codes=[A], results_versions=[1]) == NOTHING


def test_a_store_keeps_it(store: Store) -> None:
    """As it was said; without the file nothing is."""
    assert store.accepted() == NOTHING
    accepted = NOTHING.adding("ewc", codes=[A, B]).adding("si", results_versions=[1, 2])
    store.write_accepted(accepted)
    assert Store(store.root).accepted() == accepted
    assert verifying.verify(store).faults == []


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        sealed_bytes({"format": 1, "accepted": [{"method": "ewc", "codes": [A, "x"]}]}),
        sealed_bytes({"format": 1, "accepted": [{"method": "ewc", "codes": [A]}]}),
        sealed_bytes({"format": 1, "accepted": [{"codes": [A, B]}]}),
        sealed_bytes({"format": 1, "accepted": {}}),
        sealed_bytes({"format": 2, "accepted": []}),
        json.dumps({"format": 1, "accepted": []}).encode(),
        NOTHING.adding("ewc", codes=[A, B]).to_json_bytes().replace(b"bbbb", b"cccc"),
    ],
)
def test_a_damaged_file_is_refused_and_named(store: Store, content: bytes) -> None:
    """By every reader, and by verify."""
    path = Path(store.root) / ACCEPTED_FILE
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        store.accepted()
    assert str(path) in str(refused.value)
    assert verifying.verify(store).faults == [str(refused.value)]


def test_equal_content_is_equal_bytes() -> None:
    """Regardless of the order in which codes were accepted."""
    first = NOTHING.adding("si", codes=[A, B]).adding("ewc", codes=[D, C])
    second = NOTHING.adding("ewc", codes=[C, D]).adding("si", codes=[B, A])
    assert first.to_json_bytes() == second.to_json_bytes()
    assert Accepted.from_json(first.to_json_bytes(), place="here") == first
