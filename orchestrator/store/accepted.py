"""Code versions that a user has accepted as equivalent for a store's methods, with `crwn accept`.

The file is optional: without it, no two codes are equivalent. A crwn that does not know the file ignores it.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from crwn.faults import InvalidError, codes_of
from crwn.strict_json import parse
from orchestrator.errors import UserError
from orchestrator.store.files import Files
from orchestrator.store.json_fields import Fields, sealed_bytes
from orchestrator.store.schemas import ACCEPTED_FILE

FORMAT = 1
"""A reader refuses a newer format."""

_CODE = re.compile("[0-9a-f]{16}")
_FEWEST = 2
"""The smallest number of codes in an agreement."""

Value = TypeVar("Value", str, int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Equivalent code of one method: either fingerprints of its file, or results versions.

    Attributes:
        method: its name in the registry.
        codes: fingerprints, see `crwn.code`; sorted.
        results_versions: results versions, sorted.
    """

    method: str
    codes: tuple[str, ...] = ()
    results_versions: tuple[int, ...] = ()

    @classmethod
    def _read(cls, said: Fields, place: str) -> Agreement:
        found = cls(
            method=said.text("method"),
            codes=_codes(said.take("codes"), f"{place}.codes"),
            results_versions=said.said_counts("results_versions") or (),
        )
        if max(len(found.codes), len(found.results_versions)) < _FEWEST:
            raise InvalidError("accepts-nothing", f"{place}: expected two or more fingerprints or results versions")
        return found

    def _content(self) -> dict[str, Any]:
        return {"method": self.method, "codes": list(self.codes), "results_versions": list(self.results_versions)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """All code accepted as equivalent in a store.

    Attributes:
        agreements: sorted by method; no two of one method share a fingerprint or a results version.
    """

    agreements: tuple[Agreement, ...] = ()

    def codes(self, method: str, code: str) -> frozenset[str]:
        """The fingerprints of a method's file that are equivalent to this one, including this one."""
        return frozenset({code}).union(*_having(code, (each.codes for each in self._of(method))))

    def results_versions(self, method: str, version: int) -> frozenset[int]:
        """The results versions that are equivalent to this one for a method, including this one."""
        return frozenset({version}).union(*_having(version, (each.results_versions for each in self._of(method))))

    def _of(self, method: str) -> Iterator[Agreement]:
        return (each for each in self.agreements if each.method == method)

    def adding(self, method: str, *, codes: Collection[str] = (), results_versions: Collection[int] = ()) -> Accepted:
        """A copy in which these are also equivalent, along with everything equivalent to one of them."""
        alike = frozenset[str]().union(*(self.codes(method, code) for code in codes))
        versions = frozenset[int]().union(*(self.results_versions(method, each) for each in results_versions))
        kept = [
            each
            for each in self.agreements
            if each.method != method or not (alike & set(each.codes) or versions & set(each.results_versions))
        ]
        if len(alike) >= _FEWEST:
            kept.append(Agreement(method=method, codes=tuple(sorted(alike))))
        if len(versions) >= _FEWEST:
            kept.append(Agreement(method=method, results_versions=tuple(sorted(versions))))
        return Accepted(agreements=tuple(sorted(kept, key=lambda each: (each.method, not each.codes, each.codes))))

    @classmethod
    def from_json(cls, content: bytes, *, place: str) -> Accepted:
        """Read the content of a file.

        Args:
            content: the file's bytes.
            place: its full name, for errors.

        Raises:
            UserError: the file is damaged, or newer than this reader.
        """
        try:
            said = Fields(parse(content))
            is_newer = said.count("format") > FORMAT
            found = cls() if is_newer else cls._read(said)
        except (ValueError, RecursionError) as error:
            raise UserError(
                codes_of(error, "json-unreadable"),
                f"{place}: expected a file written by crwn accept: {error}. Remove it; crwn accept rewrites it.",
            ) from error
        if is_newer:
            raise UserError(
                "newer-format", f"{place}: expected format {FORMAT} or older, given a newer one; upgrade crwn."
            )
        return found

    @classmethod
    def _read(cls, said: Fields) -> Accepted:
        if not said.check_sum(("format", "accepted")):
            raise InvalidError("missing-key", "it has no checksum")
        parts = enumerate(said.parts("accepted"))
        return cls(agreements=tuple(Agreement._read(part, f"accepted[{index}]") for index, part in parts))

    def to_json_bytes(self) -> bytes:
        """The content of the file; equal values give equal bytes."""
        return sealed_bytes({"format": FORMAT, "accepted": [each._content() for each in self.agreements]})


NOTHING = Accepted()
"""For a store without such a file."""


def read(files: Files) -> Accepted:
    """Read the code accepted as equivalent in a store.

    Args:
        files: the store's files.

    Raises:
        UserError: the file is damaged, newer than this reader, or cannot be read.
    """
    place = files.locate(ACCEPTED_FILE)
    try:
        (content,) = files.read_all([ACCEPTED_FILE])
    except UserError:
        raise
    except OSError as error:
        raise UserError("file-unreadable", f"{place}: expected a readable file: {error}.") from error
    return NOTHING if content is None else Accepted.from_json(content, place=place)


def _having(value: Value, groups: Iterable[tuple[Value, ...]]) -> list[tuple[Value, ...]]:
    return [group for group in groups if value in group]


def _codes(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(code, str) and _CODE.fullmatch(code) for code in value):
        raise InvalidError(
            "not-a-fingerprint", f"{place}: expected fingerprints of 16 hexadecimal digits, given {reprlib.repr(value)}"
        )
    return tuple(value)
