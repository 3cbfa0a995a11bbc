"""The command accept: declares different code versions of a method equivalent in a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from crwn.code import Code
from orchestrator.display import print_line
from orchestrator.errors import UserError, nearest
from orchestrator.execution.other_code import present
from orchestrator.store import index
from orchestrator.store.schemas import ACCEPTED_FILE
from orchestrator.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The code to accept as equivalent; default: all code and results versions of a method in a store, and the current.

    Attributes:
        methods: the methods' names in the registry.
        codes: only these fingerprints.
        results_versions: only these results versions.
    """

    methods: tuple[str, ...]
    codes: tuple[str, ...] = ()
    results_versions: tuple[int, ...] = ()


def accept(store: Store, choice: Choice, console: Console) -> None:
    """Record which code versions of methods are equivalent in a store, and print them.

    Raises:
        UserError: the store has no finished trial of a method or of a code; or only one code is named.
    """
    known: dict[str, list[Code]] = {}
    for each in index.look(store, store.trial_ids()).computed.values():
        known.setdefault(each.method, []).append(each.code)
    _check(choice, known, store)
    accepted = before = store.accepted()
    lines = []
    for method in choice.methods:
        codes, versions = _of(method, known[method])
        if choice.codes or choice.results_versions:
            codes, versions = list(choice.codes), list(choice.results_versions)
        accepted = accepted.adding(method, codes=codes, results_versions=versions)
        one: dict[str, Sequence[object]] = {"codes": codes, "results versions": versions}
        shown = [f"{name} {', '.join(map(str, values))}" for name, values in one.items() if len(values) > 1]
        said = f"{' and '.join(shown)} are equivalent" if shown else "a single code version; nothing to accept"
        lines.append(f"{method}: {said}")
    if accepted != before:
        store.write_accepted(accepted)
        lines.append(f"recorded in {store.address}; to undo, remove its {ACCEPTED_FILE}")
    for line in lines:
        print_line(console, line)


def _of(method: str, codes: Sequence[Code]) -> tuple[list[str], list[int]]:
    """The known fingerprints and results versions of a method's trials, including those of the present code."""
    known = (*codes, present(method))
    return (
        sorted({code.method for code in known if code.method is not None}),
        sorted({code.results_version for code in known if code.results_version is not None}),
    )


def _check(choice: Choice, known: dict[str, list[Code]], store: Store) -> None:
    for method in choice.methods:
        if method not in known:
            raise UserError(
                "unknown-name", f"{store.address}: expected a method with finished trials: {nearest(method, known)}"
            )
    if not (choice.codes or choice.results_versions):
        return
    if len(choice.methods) > 1:
        raise UserError(
            "several-methods", f"--code and --results-version: expected one method, given {', '.join(choice.methods)}"
        )
    codes, versions = _of(choice.methods[0], known[choice.methods[0]])
    for name, given, there in (
        ("--code", choice.codes, codes),
        ("--results-version", list(map(str, choice.results_versions)), list(map(str, versions))),
    ):
        for value in given:
            if value not in there:
                raise UserError("unknown-name", f"{name}: {nearest(value, there)}")
        if len(set(given)) == 1:
            raise UserError("too-few", f"{name}: expected two or more, given {given[0]}; there are {there}")
