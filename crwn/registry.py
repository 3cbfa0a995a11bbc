"""Registries: mappings from names to entries, built in or added by plug-ins in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

from crwn.faults import InvalidError

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry]):
    """A mapping from names to entries: a literal dict, to which plug-ins add.

    Args:
        what: what a name denotes, in one word.
        built_in: the entries of this package, by name.

    Attributes:
        what: as given.
        built_in: as given.
    """

    def __init__(self, what: str, built_in: Mapping[str, Entry]) -> None:
        self.what = what
        self.built_in = MappingProxyType(dict(built_in))
        self._entries = dict(built_in)
        self._providers: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entries: Mapping[str, Entry], provider: object = None) -> None:
        """Add entries for the rest of this process.

        Args:
            entries: the entries, by name.
            provider: where they come from.

        Raises:
            InvalidError: a name is taken.
        """
        if taken := sorted(entries.keys() & self._entries.keys()):
            raise InvalidError(
                "name-taken", f"{self.what}: expected new names, given {', '.join(taken)}, which crwn already has"
            )
        self._entries |= entries
        self._providers |= dict.fromkeys(entries, provider)

    def remove(self, names: Iterable[str]) -> None:
        """Remove entries that were added."""
        for name in names:
            del self._entries[name], self._providers[name]

    def provider(self, name: str) -> Any:
        """Where an added entry comes from; None if it is built in, or unknown."""
        return self._providers.get(name)

    @contextmanager
    def adding(self, entries: Mapping[str, Entry]) -> Iterator[None]:
        """Add entries for the duration of a `with` block; raises like `add`."""
        self.add(entries)
        try:
            yield
        finally:
            self.remove(entries)
