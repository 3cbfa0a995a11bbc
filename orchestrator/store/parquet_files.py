"""Tables as Parquet files with checksums: a file that was changed in any way is refused.

The metadata holds three kinds of SHA-256:

- `crwn.columns`: of each column's values. So a reader of three columns checks only those three, and a few bytes show
  whether two files have equal columns. They cover values, not bytes on disk, so they do not depend on how a version of
  Arrow encodes the values.
- `crwn.sha256`: of these checksums and all other metadata of crwn.
- `crwn.bytes`: of the file's bytes, except the checksum itself. It is checked before Arrow sees the file, since Arrow
  crashes the process on some damaged files.

Files may be untrusted: their size is checked before they are unpacked.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crwn.faults import InvalidError, codes_of
from orchestrator.errors import UserError

STORE_VERSION = (1, 3)
"""Major, minor. A reader refuses a newer major version; a newer minor version only adds fields."""

STREAM_VERSION = (2, 0)
"""Version of the records of streams, whose tests are by update; a reader of version 1 would take that for damage. It is
the newest version that can be read."""

SEALED_SINCE = (1, 2)
"""From this version on, every file has checksums: a file of this version without them is damaged, not older."""

VOLATILE = {b"volatile": b"true"}
"""Marks a field that may differ between two equal runs."""

MOST_ROWS = 1_000_000
"""Limit of a file's rows: two hundred times those of a hundred interfering tasks. More is a mistake or malice."""

MOST_VALUES = 50_000_000
"""Limit of a column's values, with lists flattened."""

MOST_BYTES = 1 << 30
"""Limit of a file's unpacked size, according to the file."""

_VERSION, _COLUMNS, _SUM, _BYTES = b"crwn.version", b"crwn.columns", b"crwn.sha256", b"crwn.bytes"

_PLACE = re.compile(re.escape(_BYTES) + rb"\x18\x40([0-9a-f]{64})")
"""Matches the checksum of a file's bytes: the metadata key, and Thrift's encoding of a text of 64 characters."""

_NO_SUM = b"0" * 64
"""Placeholder while the checksum is computed."""


class DamagedError(InvalidError):
    """A file is damaged, or was not written by crwn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """The requested content of a file.

    Attributes:
        table: its rows.
        said: its metadata by name, such as checksums of other files.
        stable: a SHA-256 of the columns that do not differ between two equal runs, requested or not; None for a file
            of an older version, which has no checksums.
    """

    table: pa.Table
    said: Mapping[str, str]
    stable: str | None

    @property
    def is_sealed(self) -> bool:
        """Whether the file has checksums, which were verified."""
        return self.stable is not None


def is_volatile(item: pa.Field) -> bool:
    """Whether a field may differ between two equal runs."""
    return (item.metadata or {}).get(b"volatile") == b"true"


def stable_columns(table: pa.Table) -> pa.Table:
    """A table without the columns that may differ between two equal runs."""
    return table.select([item.name for item in table.schema if not is_volatile(item)])


def dump(table: pa.Table, said: Mapping[str, str] | None = None) -> bytes:
    """A table as a Parquet file with checksums.

    Args:
        table: the table; its schema's metadata must have `crwn.version`.
        said: further metadata, stored under `crwn.<name>`, or a different `version`; protected like the rows.
    """
    metadata = {**table.schema.metadata, **{_key(name): text.encode() for name, text in (said or {}).items()}}
    metadata.pop(_BYTES, None)  # left over if the table was read from a file
    sums = {item.name: column_sum(table[item.name]) for item in table.schema}
    metadata[_COLUMNS] = _json(sums).encode()
    metadata[_SUM] = _content_sum(metadata).encode()
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata(metadata)
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_BYTES: _NO_SUM})
    content: bytes = sink.getvalue().to_pybytes()
    start, end = _place_of_sum(content) or (0, 0)
    assert content[start:end] == _NO_SUM
    return content[:start] + hashlib.sha256(content).hexdigest().encode() + content[end:]


def _place_of_sum(content: bytes) -> tuple[int, int] | None:
    """Start and end of the checksum of a file's bytes: the last match, since the metadata is at the end."""
    last = None
    for last in _PLACE.finditer(content):  # noqa: B007 (we want the last match)
        pass
    return None if last is None else last.span(1)


def _is_as_written(content: bytes) -> bool:
    """Whether a file is proven to be byte for byte as written; False if it has no checksum of its bytes.

    Raises:
        DamagedError: the checksum differs.
    """
    place = _place_of_sum(content)
    if place is None:
        return False
    start, end = place
    digest = hashlib.sha256(content[:start])
    digest.update(_NO_SUM)
    digest.update(content[end:])
    if digest.hexdigest().encode() != content[start:end]:
        raise DamagedError("content-changed", "its bytes have changed since they were written: the SHA-256 differs")
    return True


def stable_sum(table: pa.Table) -> str:
    """A SHA-256 of the columns that do not differ between two equal runs: `Sealed.stable` of the table's file."""
    return _stable_sum(table.schema, {item.name: column_sum(table[item.name]) for item in table.schema})


def load(content: bytes | None, schema: pa.Schema, place: str) -> Sealed:
    """Read a file written by `dump`, of this or an older version.

    Args:
        content: the file's content; None if it is missing.
        schema: the columns wanted. Those that an older file lacks are null.
        place: the file's full name, for errors.

    Raises:
        UserError: the file is missing, damaged, unreasonably large, or of a newer major version.
    """
    try:
        if content is None:
            raise DamagedError("file-missing", "it is missing")
        return _load(content, schema, place)
    except UserError:
        raise
    # On damaged files, pyarrow raises no closed set of errors: besides its own, OverflowError, TypeError, MemoryError
    # and UnicodeDecodeError were seen
    except Exception as error:
        raise refusal(place, error) from error


def refusal(place: str, error: Exception) -> UserError:
    """The error for a damaged record; the advice is the same whatever is wrong."""
    said = " ".join(str(error).split()).rstrip(".") or repr(error)
    return UserError(
        codes_of(error, "record-unreadable"),
        f"{place}: expected a readable record: {said[:_SHOWN]}. Recompute its trial with crwn run SWEEP "
        "--repair, or remove its folder.",
    )


_SHOWN = 300
"""Number of characters shown of a library's error."""


def _load(content: bytes, schema: pa.Schema, place: str) -> Sealed:
    is_as_written = _is_as_written(content)
    file = pq.ParquetFile(pa.BufferReader(content))
    written = file.schema_arrow  # recomputed at every access
    metadata: dict[bytes, bytes] = {
        key: value for key, value in (written.metadata or {}).items() if key.startswith(b"crwn.")
    }
    version = _version(metadata)
    if version[0] > STREAM_VERSION[0]:
        given = ".".join(map(str, version))
        raise UserError(
            "newer-version", f"{place}: expected version {STREAM_VERSION[0]} or older, given {given}; upgrade crwn."
        )
    _check_size(file.metadata, columns_too=is_as_written)
    sums = _sums(metadata, version)
    if sums is not None and sorted(sums) != sorted(written.names):
        raise DamagedError("columns-changed", "its columns have changed since they were written")
    present = set(written.names)
    table = file.read(columns=[name for name in schema.names if name in present], use_threads=False)  # they are small
    if sums is None:
        table.validate(full=True)
    for name in table.schema.names:
        if sums is not None and column_sum(table[name]) != sums[name]:
            raise DamagedError(
                "content-changed", f"its column {name} has changed since it was written: the SHA-256 differs"
            )
    for item in schema:  # an older record has fewer columns
        if item.name not in present:
            table = table.append_column(item, pa.nulls(len(table), item.type))
    return Sealed(
        table=table.select(schema.names).cast(schema),
        said={key.decode()[len("crwn.") :]: value.decode() for key, value in metadata.items()},
        stable=None if sums is None else _stable_sum(written, sums),
    )


def _version(metadata: Mapping[bytes, bytes]) -> tuple[int, int]:
    if _VERSION not in metadata:
        raise DamagedError("not-a-record", "it is a Parquet file, but was not written by crwn")
    found = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", metadata[_VERSION].decode())
    if found is None:
        raise DamagedError("not-a-version", f"expected a version such as 1.2, given {metadata[_VERSION].decode()!r}")
    return int(found[1]), int(found[2])


def _check_size(metadata: pq.FileMetaData, *, columns_too: bool) -> None:
    """Check that a file has a plausible size, before unpacking any of it.

    Args:
        metadata: the file's metadata.
        columns_too: whether to check each column; on damaged files, Arrow crashes the process when asked for columns.
    """
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    rows = max(metadata.num_rows, sum(group.num_rows for group in groups))
    size = sum(group.total_byte_size for group in groups)
    values = 0
    if columns_too:
        columns = (group.column(index) for group in groups for index in range(group.num_columns))
        values = max((column.num_values for column in columns), default=0)
    for given, most, what in ((rows, MOST_ROWS, "rows"), (values, MOST_VALUES, "values"), (size, MOST_BYTES, "bytes")):
        if not 0 <= given <= most:
            raise DamagedError("file-too-large", f"expected at most {most:,} {what}, given {given:,}")


def _sums(metadata: Mapping[bytes, bytes], version: tuple[int, int]) -> dict[str, str] | None:
    """The columns' checksums in the file; None if an older version wrote it.

    Raises:
        DamagedError: they are not as written, or are missing.
    """
    if not {_SUM, _COLUMNS, _BYTES} & set(metadata) and version < SEALED_SINCE:
        return None
    if metadata.get(_SUM, b"").decode() != _content_sum(metadata):
        raise DamagedError("content-changed", "its metadata have changed since they were written: the SHA-256 differs")
    sums: dict[str, str] = json.loads(metadata[_COLUMNS])
    return sums


def _content_sum(metadata: Mapping[bytes, bytes]) -> str:
    """SHA-256 of all metadata, including the columns' checksums."""
    digest = hashlib.sha256()
    for key, value in sorted(metadata.items()):
        if key.startswith(b"crwn.") and key not in (_SUM, _BYTES):
            digest.update(f"{len(key)} {len(value)} ".encode() + key + value)
    return digest.hexdigest()


def _stable_sum(schema: pa.Schema, sums: Mapping[str, str]) -> str:
    kept = {item.name: sums[item.name] for item in schema if not is_volatile(item)}
    return hashlib.sha256(_json(kept).encode()).hexdigest()


def column_sum(column: pa.ChunkedArray) -> str:
    """A SHA-256 of a column's values, independent of their encoding and chunks.

    All NaNs count as one value, and so do both zeros: Arrow's dictionaries may swap them.
    """
    digest = hashlib.sha256()
    array = column.combine_chunks()
    _feed(digest, pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array)
    return digest.hexdigest()


def _feed(digest: Any, array: pa.Array) -> None:
    """Add an array's length, its null mask and its values to the digest."""
    kind = array.type
    digest.update(f"{len(array)} ".encode())
    is_valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else np.ones(len(array), bool)
    digest.update(np.packbits(is_valid).tobytes())
    if pa.types.is_struct(kind):
        digest.update(_json([item.name for item in kind]).encode())
        for part in array.flatten():
            _feed(digest, part)
    elif pa.types.is_list(kind):
        digest.update(b"list ")
        digest.update(_numbers(pc.list_value_length(array)))
        _feed(digest, array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        digest.update(f"{kind} ".encode())
        digest.update(_numbers(pc.binary_length(array)))
        digest.update(b"".join(value or b"" for value in array.cast(pa.binary()).to_pylist()))
    else:
        digest.update(f"{kind} ".encode())
        digest.update(_numbers(array))


def _numbers(array: pa.Array) -> bytes:
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    if array.null_count:
        array = array.fill_null(0)  # only if needed: for small tables, calls into Arrow dominate the cost
    values = _values(array)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), math.nan, values + 0.0)
    content: bytes = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return content


def _values(array: pa.Array) -> NDArray[Any]:
    """The numbers of an array without nulls. Arrow's own conversion imports pandas, which takes a second."""
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
        return values
    sign = "f" if pa.types.is_floating(kind) else "i" if pa.types.is_signed_integer(kind) else "u"
    dtype = np.dtype(f"{sign}{kind.bit_width // 8}")  # Arrow's own mapping needs pandas too
    if len(array) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, count=array.offset + len(array))[array.offset :]


def _key(name: str) -> bytes:
    return f"crwn.{name}".encode()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def from_rows(rows: Sequence[Mapping[str, Any]] | Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table; a key that a row lacks is null."""
    return pa.Table.from_pylist([{**row} for row in rows], schema=schema)
