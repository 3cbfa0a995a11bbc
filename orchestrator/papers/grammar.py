"""The structure of a paper's file: an example, and a dataclass for each part as it is written.

    title: authors, title, where it is
    trials: The paper's settings, three seeds        # which trials its tables show; used in captions
    seeds: 3
    rows:                                            # labelled rows: a method, its settings and training
      flynet: {method: flynet}
      flynet local: {method: flynet, settings: {modulation: local}, training: {learning_rate: 0.02}}
    benchmarks:                                      # optional: benchmarks of its own, as in a sweep
      six rotations: {preset: r-mnist, num_tasks: 6}
    tables:
      table1:
        title: what it shows
        benchmarks: [r-mnist, p-mnist]               # presets or its own, one column each
        values: [forgetting]                         # optional: further measures
        reference: flynet                            # optional: show parameters relative to this row
        seconds: true                                # optional: training seconds per task
        columns: [local+global, local]               # optional: names of a row's column and of the one beside it
        needs: {modulation: local}                   # optional: settings that a sweep needs for this layout
        rows:
          - {name: FlyNet, row: flynet, beside: flynet local, scales: [10d, 20d], only: [r-mnist]}
    figures:
      figure2: {title: what it shows, shows: tasks, table: table1, benchmark: r-mnist}     # see `paper.Shows`
      figure3: {title: both at once, shows: tasks, table: table1, benchmark: p-mnist, before: r-mnist}
    claims:
      - says: the claim in words
        checks:
          - on: [r-mnist, p-mnist]                   # presets; each comparison is made on every one
            compare:
              - {row: flynet 20d, higher: accuracy, than: [flynet 10d], by: 0.05}
              - {row: flynet 20d, lower: params_per_task, than: [flynet local 40d], times: 0.1}
              - {row: flynet 20d on p-mnist, higher: accuracy, than: [flynet 20d], tasks: [1, 2, -1]}
              - {row: flynet 20d, equal: forgetting, to: 0}
              - {row: flynet 20d, higher: accuracy, tasks: [1, 3], others: [2, 4], surely: true}
              - {falling: accuracy, gains: [[flynet 10d, flynet local 10d], [flynet 20d, flynet local 20d]]}

A claim names a row by its label and scale, followed by `on` and a benchmark if that differs from the check's. The
quantity compared is one of `paper.QUANTITIES`. `by` is the smallest difference that counts, paired by seed, in the
measure's own unit (accuracies in [0, 1]); `times` bounds the ratio of the means over seeds. With `surely: true`, the
whole 95 % t interval of the paired difference must lie on the claim's side. `others` compares tasks within a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from crwn.faults import InvalidError
from crwn.spec import READ_STRICTLY, Count
from orchestrator.papers.paper import Shows


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """The file's top level; each nested part has its own class."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    title: str
    trials: str
    seeds: Count
    rows: dict[str, Any]
    benchmarks: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    claims: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPart:
    """An entry under `rows`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePart:
    """An entry under `tables`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    title: str
    benchmarks: tuple[str, ...]
    rows: tuple[Any, ...]
    reference: str | None = None
    values: tuple[str, ...] = ()
    seconds: bool = False
    columns: tuple[str, ...] = ()
    needs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinePart:
    """A row of a table."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    name: str
    row: str
    scales: tuple[str, ...]
    only: tuple[str, ...] = ()
    beside: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FigurePart:
    """An entry under `figures`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    title: str
    shows: Shows
    table: str
    benchmark: str
    before: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimPart:
    """An element of `claims`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    says: str
    checks: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksPart:
    """An element of `checks`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    on: tuple[str, ...]
    compare: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPart:
    """An element of `compare`.

    Raises:
        ValueError: the keys given do not make a comparison.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    row: str | None = None
    than: tuple[str, ...] | None = None
    gains: tuple[tuple[str, str], ...] | None = None
    higher: str | None = None
    lower: str | None = None
    equal: str | None = None
    rising: str | None = None
    falling: str | None = None
    by: float | None = None
    times: float | None = None
    tasks: tuple[int, ...] | None = None
    others: tuple[int, ...] | None = None
    surely: bool | None = None
    to: float | None = None

    def __post_init__(self) -> None:
        if len(self._given(_RELATIONS)) != 1:
            raise InvalidError("relation-not-one", f"expected one of {', '.join(_RELATIONS)} with what is compared")
        given = set(self._given(("row", "than", "gains", "by", "times", "tasks", "others", "surely", "to")))
        allowed = _SHAPES[self.relation]
        if given not in allowed:
            shapes = " or ".join(" and ".join(sorted(shape)) for shape in allowed)
            raise InvalidError(
                "comparison-incomplete",
                f"expected {shapes} with {self.relation}; given {' and '.join(sorted(given)) or 'none'}",
            )
        if any(tasks is not None and (not tasks or 0 in tasks) for tasks in (self.tasks, self.others)) or (
            self.tasks is not None and self.quantity != "accuracy"
        ):
            message = "expected tasks, counted from 1 or from -1 backwards, with accuracy alone"
            raise InvalidError("tasks-without-accuracy", message)

    def _given(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]

    @property
    def relation(self) -> str:
        """How the row should differ: whichever of `higher`, `lower` and so on is given."""
        return self._given(_RELATIONS)[0]

    @property
    def quantity(self) -> str:
        """The quantity that is compared."""
        return str(getattr(self, self.relation))


_RELATIONS = ("higher", "lower", "equal", "rising", "falling")
_BOUND, _GAINS = frozenset({"row", "to"}), frozenset({"gains"})
_TWO = frozenset({"row", "than"})
_WITHIN = frozenset({"row", "tasks", "others"})
_SURE = [side | more for side in (_TWO, _WITHIN) for more in ({"by"}, {"surely"}, {"by", "surely"})]
_SIDES = (_TWO, _WITHIN, *_SURE, _TWO | {"times"}, _TWO | {"tasks"}, _BOUND)
_SHAPES: Mapping[str, tuple[frozenset[str], ...]] = MappingProxyType(
    {"higher": _SIDES, "lower": _SIDES, "equal": (_BOUND,), "rising": (_GAINS,), "falling": (_GAINS,)}
)
"""Which other keys each relation takes."""
