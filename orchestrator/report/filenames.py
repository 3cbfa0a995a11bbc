"""File names made from labels: different labels always have different names.

A label is any single-line text; a file name is short ASCII text without path separators. A plain label (lower-case
letters, digits, single hyphens and underscores between them) is its own file name. Any other is transliterated as well
as possible and followed by eight digits of its SHA-256: `a/b` becomes `a-b-c14cddc0`. So a name depends only on its
label, not on other labels, and no two names differ only by case, which some file systems ignore.
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
"""The form of a name with a hash: a label of this form gets a hash too."""

_TABLE_OF_A_SWEEP = re.compile(
    r"(?:.*\.(?:ablations|ranks|table\d+|against-[^.]*)"
    rf"|paper(?:-[a-z0-9]+)?-table\d+|(?:{'|'.join(MEASURES)}|[a-z_]+_per_task)-.+-by-.+)(?:-[0-9a-f]{{8}})*",
    re.IGNORECASE,
)
"""Names that crwn uses for other tables than a sweep's own."""


def part(label: str) -> str:
    """A label as a file name or a part of one: letters, digits, `-` and `_`, at most `MAX_PLAIN` of them."""
    if len(label) <= MAX_PLAIN and _PLAIN.fullmatch(label) and not _HASHED.fullmatch(label):
        return label
    shown = "-".join(re.findall("[A-Za-z0-9]+", label))[:MAX_SHOWN].strip("-")
    return "-".join(filter(None, (shown, _digits(label))))


def figure(sweep: str, benchmark: str, what: str) -> str:
    """The name of a figure's files.

    Args:
        sweep: the sweep's name.
        benchmark: the benchmark's label.
        what: which figure of the benchmark, in one word.
    """
    return f"{sweep}-{part(benchmark)}-{what}"


def table(sweep: str) -> str:
    """The file name of a sweep's own table: the sweep's name, unless another table could have it."""
    return f"{sweep}-{_digits(sweep)}" if _TABLE_OF_A_SWEEP.fullmatch(sweep) else sweep


def against(sweep: str, reference: str) -> str:
    """The file name of the table that compares a sweep's rows with one of them."""
    return f"{sweep}.against-{part(reference)}"


def dotted(name: str) -> str:
    """A setting's name, such as `training.learning_rate`, as a part of a file name."""
    return ".".join(map(part, name.split(".")))


def distinct(names: Iterable[tuple[str, str]]) -> list[str]:
    """Make names distinct, ignoring case.

    Args:
        names: each with the thing it names: if an earlier one has the same name, a hash of the thing is appended.

    Returns:
        As many names, in the same order; those already distinct from all earlier ones are unchanged.
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
