"""Parquet files with checksums: reading returns exactly what was written, or fails."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.errors import UserError
from orchestrator.store import parquet_files
from orchestrator.store.parquet_files import DamagedError, dump, from_rows, load, stable_sum
from tests.refusals import refused

POINT = pa.struct([("step", pa.int64()), ("loss", pa.float64())])

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("count", pa.int64()),
        pa.field("value", pa.float64()),
        pa.field("points", pa.list_(POINT)),
        pa.field("seconds", pa.float64(), metadata=parquet_files.VOLATILE),
    ],
    metadata={b"crwn.version": b"1.2", b"crwn.record": b"things"},
)

ROWS: list[dict[str, Any]] = [
    {"name": "ä", "count": 1, "value": 0.5, "points": [{"step": 1, "loss": float("inf")}], "seconds": 2.0},
    {"name": "", "count": None, "value": None, "points": [], "seconds": None},
    {"name": None, "count": -(2**60), "value": -1e-300, "points": None, "seconds": 0.0},
    {"name": "b" * 300, "count": 3, "value": 1 / 3, "points": [None, {"step": None, "loss": -0.0}], "seconds": 1.5},
]


def written(rows: list[dict[str, Any]] = ROWS, schema: pa.Schema = SCHEMA) -> bytes:
    """A file of these rows."""
    return dump(from_rows(rows, schema))


def test_rows_come_back_as_they_were_written() -> None:
    """Every kind of column that records have, nulls at every depth among them; and what else the file was told."""
    found = load(dump(from_rows(ROWS, SCHEMA), {"contexts": "abc"}), SCHEMA, "x")
    assert found.table.to_pylist() == ROWS
    assert found.is_sealed
    assert (found.said["contexts"], found.said["record"]) == ("abc", "things")


def test_some_columns_alone_can_be_read() -> None:
    """They come in the order asked for, with the sum of all stable ones, which is that of the whole file's rows."""
    asked = pa.schema([SCHEMA.field("value"), SCHEMA.field("name")])
    found = load(written(), asked, "x")
    assert found.table.to_pylist() == [{"value": row["value"], "name": row["name"]} for row in ROWS]
    assert found.stable == stable_sum(from_rows(ROWS, SCHEMA))


def changed(index: int, **values: Any) -> list[dict[str, Any]]:
    """The rows with other values in one of them."""
    return [row | values if place == index else row for place, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    "rows",
    [
        changed(0, name="a"),
        changed(1, name=None),
        changed(2, name=""),
        changed(1, count=0),
        changed(3, value=np.nextafter(1 / 3, 1)),
        changed(1, value=float("nan")),
        changed(0, points=[{"step": 1, "loss": 1.0}]),
        changed(1, points=None),
        changed(3, points=[{"step": None, "loss": None}, {"step": None, "loss": -0.0}]),
        ROWS[:-1],
        [ROWS[1], ROWS[0], *ROWS[2:]],
    ],
)
def test_other_values_have_another_sum(rows: list[dict[str, Any]]) -> None:
    """A bit of a number, null for nothing, the order of rows: whatever a reader could notice."""
    assert stable_sum(from_rows(rows, SCHEMA)) != stable_sum(from_rows(ROWS, SCHEMA))


def test_text_that_moves_between_rows_has_another_sum() -> None:
    """The same letters in all, cut elsewhere."""
    schema = pa.schema([pa.field("name", pa.string())])
    sums = {stable_sum(from_rows([{"name": a}, {"name": b}], schema)) for a, b in (("ab", "c"), ("a", "bc"))}
    assert len(sums) == 2


def test_volatile_columns_have_no_part_in_the_stable_sum() -> None:
    """Two equal runs differ in their times alone."""
    assert stable_sum(from_rows(changed(0, seconds=9.0), SCHEMA)) == stable_sum(from_rows(ROWS, SCHEMA))


@pytest.mark.parametrize(
    "options",
    [{"compression": "none"}, {"use_dictionary": False}, {"row_group_size": 1}, {"data_page_version": "2.0"}],
)
def test_a_sum_is_of_values_and_not_of_their_encoding(options: dict[str, Any]) -> None:
    """A file that another version of Arrow wrote, with other defaults, is as good."""
    table = pq.ParquetFile(pa.BufferReader(written())).read()
    said = {key: value for key, value in table.schema.metadata.items() if key != b"crwn.bytes"}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(said), sink, **options)
    assert load(sink.getvalue(), SCHEMA, "x").table.to_pylist() == ROWS


def flipped(content: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """The file with one bit after another flipped."""
    for place in places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        yield bytes(damaged)


def test_a_flipped_bit_is_noticed() -> None:
    """Anywhere in the rows, in one line; without the sum of the bytes Arrow would end the process at some of these."""
    content = written()
    end = content.rindex(b"crwn.bytes")
    for damaged in flipped(content, np.random.default_rng(0).choice(8 * end, 400, replace=False).tolist()):
        with pytest.raises(UserError) as caught:
            load(damaged, SCHEMA, "there/x.parquet")
        assert str(caught.value).startswith("there/x.parquet: ")
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_the_mark_of_the_sum_changes_nothing() -> None:
    """A reader that no longer finds the sum of the bytes has the others: the file is refused, or as it was."""
    content = written()
    found = []
    for damaged in flipped(content, range(8 * content.rindex(b"crwn.bytes"), 8 * len(content))):
        with contextlib.suppress(UserError):
            found.append(load(damaged, SCHEMA, "x").table.to_pylist())
    assert all(rows == ROWS for rows in found)


def stripped(content: bytes, change: Callable[[dict[bytes, bytes]], dict[bytes, bytes]]) -> bytes:
    """The file with other metadata."""
    table = pq.ParquetFile(pa.BufferReader(content)).read()
    said = {key: value for key, value in table.schema.metadata.items() if key != b"crwn.bytes"}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(change(said)), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "lost", [[b"crwn.sha256"], [b"crwn.columns"], [b"crwn.sha256", b"crwn.columns"], [b"crwn.record"]]
)
def test_a_file_of_this_version_has_its_sums(lost: list[bytes]) -> None:
    """Without them it is no older file but a damaged one; nothing that it says of itself may be missing."""
    content = stripped(written(), lambda said: {key: value for key, value in said.items() if key not in lost})
    with refused(UserError, "content-changed"):
        load(content, SCHEMA, "x")


def test_a_file_of_an_older_version_has_none() -> None:
    """It is read, and known to be unchecked."""
    sums = (b"crwn.sha256", b"crwn.columns")
    older = stripped(
        written(),
        lambda said: {k: v for k, v in said.items() if k not in sums} | {b"crwn.version": b"1.1"},
    )
    found = load(older, SCHEMA, "x")
    assert found.table.to_pylist() == ROWS
    assert not found.is_sealed


def test_a_newer_minor_version_may_have_more_columns() -> None:
    """Its sums hold for what this reader does not know, too."""
    added = pa.schema([pa.field("added", pa.int64()), *SCHEMA], metadata={b"crwn.version": b"1.7"})
    assert load(written([row | {"added": 1} for row in ROWS], added), SCHEMA, "x").table.to_pylist() == ROWS


@pytest.mark.parametrize("version", [b"", b"1", b"one.two", b"1.2.3", b"\xff", b"-1.0"])
def test_a_version_that_is_none_is_refused(version: bytes) -> None:
    """In one line, like every fault."""
    with refused(UserError, "record-unreadable" if version == b"\xff" else "not-a-version"):
        load(stripped(written(), lambda said: said | {b"crwn.version": version}), SCHEMA, "x")


def test_a_file_with_too_many_rows_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes may stand for millions of rows: how many is looked at first."""
    schema = pa.schema([pa.field("count", pa.int64())], metadata={b"crwn.version": b"1.2"})
    many = pa.table({"count": np.zeros(parquet_files.MOST_ROWS + 1, dtype=np.int64)}, schema=schema)
    content = dump(many)
    assert len(content) < 10_000

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was unpacked")

    monkeypatch.setattr(pq.ParquetFile, "read", refuse)
    with refused(UserError, "file-too-large", says="1,000,001"):
        load(content, schema, "x")


def test_lists_and_text_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row may hold as much as a million."""
    monkeypatch.setattr(parquet_files, "MOST_VALUES", 100)
    with refused(UserError, "file-too-large", says=["100", "101"]):
        load(written([ROWS[0] | {"points": [{"step": 1, "loss": 1.0}] * 101}]), SCHEMA, "x")
    monkeypatch.setattr(parquet_files, "MOST_BYTES", 10_000)
    with refused(UserError, "file-too-large", says="10,000"):
        load(written([ROWS[0] | {"name": "a" * 20_000}]), SCHEMA, "x")


def test_a_missing_file_and_a_library_s_long_error_are_one_line() -> None:
    """Whatever Arrow says of a file."""
    with refused(UserError, "file-missing", says="x: "):
        load(None, SCHEMA, "x")
    with refused(UserError, "record-unreadable") as caught:
        load(b"PAR1" + b"\n" * 1000 + b"PAR1", SCHEMA, "x")
    assert "\n" not in str(caught.value)
    assert issubclass(DamagedError, ValueError)
