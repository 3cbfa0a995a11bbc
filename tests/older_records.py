"""Records as written by versions before 1.2: without checksums."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SUMS = (b"crwn.columns", b"crwn.sha256", b"crwn.bytes", b"crwn.tasks", b"crwn.contexts")


def make_older(path: Path, change: Callable[[pa.Table], pa.Table] = lambda table: table, version: str = "1.1") -> None:
    """Write a record again, with other rows if wanted, as an older version would have."""
    table = change(pq.ParquetFile(path).read())
    kept = {key: value for key, value in table.schema.metadata.items() if key not in SUMS}
    pq.write_table(table.replace_schema_metadata({**kept, b"crwn.version": version.encode()}), path)
