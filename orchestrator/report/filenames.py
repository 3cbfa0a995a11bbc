"""Names of files that are made from labels: unlike labels give unlike names, whatever else there is.

A label is any text of a line; a file's name is ASCII, short, and leads nowhere else. A plain label (small letters,
digits, single hyphens and underscores between them) is its own name. Any other is shown as well as can be, with eight
digits of its SHA-256 behind it: `a/b` is `a-b-c14cddc0`. So a name hangs on its label alone, not on the labels beside
it, and no two differ by capitals alone, which some file systems take for the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from orchestrator.measures import MEASURES

MAX_PLAIN = 100
"""Characters of a label that is its own name; a file's whole name has room for 255."""

MAX_SHOWN = 40
"""Characters that are shown of any other."""

_PLAIN = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
_HASHED = re.compile(r"(?:.*-)?[0-9a-f]{8}")
"""What a name with a hash may look like: a label that does gets one of its own."""

_TABLE_OF_A_SWEEP = re.compile(
    r"(?:.*\.(?:ablations|ranks|table\d+|against-[^.]*)"
    rf"|paper(?:-[a-z0-9]+)?-table\d+|(?:{'|'.join(MEASURES)}|[a-z_]+_per_task)-.+-by-.+)(?:-[0-9a-f]{{8}})*",
    re.IGNORECASE,
)
"""Names that crwn gives to other tables than a sweep's own."""


def part(label: str) -> str:
    """A label as a file's name or a part of one: letters, digits, `-` and `_`, at most `MAX_PLAIN` of them."""
    if len(label) <= MAX_PLAIN and _PLAIN.fullmatch(label) and not _HASHED.fullmatch(label):
        return label
    shown = "-".join(re.findall("[A-Za-z0-9]+", label))[:MAX_SHOWN].strip("-")
    return "-".join(filter(None, (shown, _digits(label))))


def figure(sweep: str, benchmark: str, what: str) -> str:
    """The name of a figure's files.

    Args:
        sweep: its name.
        benchmark: its label.
        what: which figure of the benchmark, a word.
    """
    return f"{sweep}-{part(benchmark)}-{what}"


def table(sweep: str) -> str:
    """The name of the files of a sweep's own table: the sweep's, unless another table may be called so."""
    return f"{sweep}-{_digits(sweep)}" if _TABLE_OF_A_SWEEP.fullmatch(sweep) else sweep


def against(sweep: str, reference: str) -> str:
    """The name of the table that compares a sweep's rows with one of them."""
    return f"{sweep}.against-{part(reference)}"


def dotted(name: str) -> str:
    """A setting's name, such as `training.learning_rate`, as a part of a file's."""
    return ".".join(map(part, name.split(".")))


def distinct(names: Iterable[tuple[str, str]]) -> list[str]:
    """Names of which no two are equal, nor differ by capitals alone.

    Args:
        names: each with what it is the name of: a hash of that follows a name that an earlier one has.

    Returns:
        As many, in the same order; those that are already unlike all earlier ones as they are.
    """
    found: list[str] = []
    taken: set[str] = set()
    for name, of in names:
        chosen, tries = name, 0
        while chosen.casefold() in taken:
            chosen, tries = f"{name}-{_digits(f'{tries} {of}')}", tries + 1
        taken.add(chosen.casefold())
        found.append(chosen)
    return found


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
