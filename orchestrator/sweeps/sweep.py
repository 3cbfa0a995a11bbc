"""A sweep: YAML in, trials out. Every fault of a file is found and reported at once, with its place.

    name: example                        # optional; the file's name by default
    store: runs/shared                   # optional; sweeps that name one store share their trials
    seeds: [0, 1, 2]
    benchmarks:                          # a list of presets, or labels with settings
      r-mnist:                           # a preset's name needs no settings
      six rotations: {preset: r-mnist, num_tasks: 6}
      own: {kind: permuted, base: digits, num_tasks: 12}
    methods:                             # a method's name, or a label with `method:`
      supsup: {scales: [FC256]}
      neuromodnet:
        scales: [FC256, FC1024]
        settings: {initial_strength: 1.0}
        training: {learning_rate: 0.01}
        group_size: 8                    # optional; at most so many tasks learned at once
        base: both                       # optional; an ablation: the variant that the others are compared with
        variants:                        # each runs; a variant overrides settings and training
          both: {}
          local: {settings: {modulation: local}}
    training: {updates_per_task: 1000}   # for every method
    reference: supsup                    # optional; params/task are also given as a ratio to this method's
    keep_weights: false                  # whether trained weights are kept with the contexts
    resources: {gpus: 0.25, cpus: 1}     # of a trial; not part of what a trial is

What is not given is the paper's; `updates_per_task` takes the place of a method's own `epochs_per_task`, and the other
way round. The grid is methods x variants x scales x benchmarks x seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from annotated_types import Ge, Gt, MinLen

from crwn.benchmarks import BENCHMARKS, PRESETS
from crwn.methods import METHODS
from crwn.methods.protocol import ScaleError
from crwn.paths import expanded
from crwn.spec import (
    READ_STRICTLY,
    BenchmarkSpec,
    Blueprint,
    Count,
    Index,
    MethodSpec,
    TrainingSpec,
    TrialSpec,
    check_group_size,
)
from orchestrator.errors import UserError
from orchestrator.store.address import check_address
from orchestrator.store.manifests import NAME, Manifest, ManifestCell
from orchestrator.sweeps import typed, yaml_source
from orchestrator.sweeps.yaml_source import KeyPath, Source, show_path

T = TypeVar("T")

MAX_TRIALS = 200_000
"""Of a sweep; a few short lists already ask for more than any machine can list."""

SWEEPS_FOLDER = "sweeps"
"""Where a project keeps its sweeps."""

MAX_LABEL = 100
"""Characters of a label: tables, figures and lines show it whole."""

_RESERVED_LABELS = (
    *("method", "variant", "scale", "network", "params/task", "ratio", "s/task"),
    *("masked", "forgetting", "examples kept"),
)
"""Columns of the tables in which every benchmark has a column of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one trial gets of a machine; not part of the trial's identity.

    Attributes:
        gpus: a share below 1, or a whole number; None for the share that its memory asks for, where there is a GPU.
        cpus: CPU cores; a trial computes with a thread for each whole one.

    Raises:
        ValueError: a number of GPUs above 1 that is not whole.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    gpus: Annotated[float, Ge(0)] | None = None
    cpus: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        if self.gpus is not None and self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus: expected a share of at most 1 or a whole number, given {self.gpus:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a sweep's table: trials that differ by their seed alone, under the sweep's own names.

    Attributes:
        group_size: at most so many tasks learned at once; None for the rule's choice.
        base: the variant that those of its entry are compared with, where the entry is an ablation; else None.
    """

    method: str
    variant: str
    scale: str
    benchmark: str
    trials: tuple[TrialSpec, ...]
    group_size: int | None = None
    base: str | None = None

    @property
    def blueprint(self) -> Blueprint:
        """What the trials build; only drawn numbers differ between seeds."""
        return self.trials[0].blueprint()

    @property
    def settings(self) -> dict[str, Any]:
        """What the trials have in common: their spec without the seed, as JSON values."""
        spec: dict[str, Any] = json.loads(self.trials[0].canonical_json())
        return {name: value for name, value in spec.items() if name != "seed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A validated sweep.

    Attributes:
        name: what it is called in the store.
        store: the store that it names, a path or a URI, or None.
        cells: in the order of the file.
        resources: of each trial.
        reference: the method whose params/task the others' are compared with, or None.
        keep_weights: whether trained weights are kept with the contexts.
    """

    name: str
    store: str | None
    cells: tuple[Cell, ...]
    resources: Resources
    reference: str | None = None
    keep_weights: bool = False

    @property
    def trials(self) -> tuple[TrialSpec, ...]:
        """All trials, in the order of the file."""
        return tuple(trial for cell in self.cells for trial in cell.trials)

    @property
    def group_sizes(self) -> dict[str, int]:
        """How many tasks at most are learned at once, by trial; those without a limit are left out."""
        return {
            trial.trial_id: cell.group_size
            for cell in self.cells
            if cell.group_size is not None
            for trial in cell.trials
        }

    def ratio(self, cell: Cell) -> float | None:
        """A cell's params/task over those of the reference on the same benchmark; None without a reference."""
        for other in self.cells:
            if other.method == self.reference and other.benchmark == cell.benchmark:
                return cell.blueprint.params_per_task / other.blueprint.params_per_task
        return None

    def manifest(self) -> Manifest:
        """What the store keeps of the sweep: which trials it asks for, under which names."""
        cells = tuple(
            ManifestCell(
                method=cell.method,
                variant=cell.variant,
                scale=cell.scale,
                benchmark=cell.benchmark,
                trials={trial.seed: trial.trial_id for trial in cell.trials},
                continual=cell.blueprint.is_continual,
                validation=cell.trials[0].benchmark.validation,
                params_per_task=float(cell.blueprint.params_per_task),
                ratio=self.ratio(cell),
                spec=cell.settings,
                base=cell.base,
                examples_kept=cell.blueprint.examples_kept,
            )
            for cell in self.cells
        )
        return Manifest(name=self.name, reference=self.reference, cells=cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """The file's top level; parts that have a place of their own are validated there."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    seeds: Annotated[tuple[Index, ...], MinLen(1)]
    benchmarks: Any
    methods: Annotated[dict[str, Any], MinLen(1)]
    name: str | None = None
    store: Annotated[str, MinLen(1)] | None = None
    reference: str | None = None
    keep_weights: bool = False
    training: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overrides:
    """What a variant sets anew."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _MethodEntry:
    """An entry under `methods`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    scales: Annotated[tuple[str, ...], MinLen(1)]
    benchmarks: Annotated[tuple[str, ...], MinLen(1)] | None = None
    method: str | None = None
    group_size: Count | None = None
    base: str | None = None
    variants: Annotated[dict[str, Any], MinLen(1)] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def load_sweep(file: Path) -> Sweep:
    """Read and validate a sweep file.

    Raises:
        UserError: the file cannot be read, or has faults; all of them are in the message.
    """
    try:
        place = expanded(file)
    except ValueError as error:
        raise UserError(f"{error}.") from error
    if not place.exists() and (found := elsewhere(place)) is not None:
        raise UserError(f"{file}: expected a file, and there is none; there is {found}")
    return _Reader(yaml_source.read(place)).sweep()


def elsewhere(file: Path) -> Path | None:
    """The sweep that is probably meant by a path at which nothing is: sweeps move, into the folder of a paper, say.

    Args:
        file: the path.

    Returns:
        Of the files of its name below the folder `sweeps` that the path leads through, or else that of the working
        directory, the one whose own folders are most like the path's; None where there is none.
    """
    through = [parent for parent in file.parents if parent.name == SWEEPS_FOLDER]
    folder = next((parent for parent in [*through, Path(SWEEPS_FOLDER)] if parent.is_dir()), None)
    if folder is None or not file.name:
        return None
    found = [path for path in folder.rglob("*") if path.name == file.name and path.is_file()]

    def unlikeness(path: Path) -> tuple[int, int, str]:
        return -len(set(path.parent.parts) & set(file.parent.parts)), len(path.parts), str(path)

    return min(found, key=unlikeness, default=None)


class _Reader:
    """Turns a parsed file into a sweep, noting every fault on the way."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def sweep(self) -> Sweep:
        value = self._source.value
        if not isinstance(value, dict):
            self._source.fault((), "expected a sweep: keys such as seeds, benchmarks and methods")
            self._source.raise_faults()
        top = self._read(_File, value, ())
        # Parts are read from the raw values, so that faults at the top do not hide those below.
        resources = self._override(Resources(), _mapping(value, "resources"), ("resources",))
        benchmarks = dict(self._benchmarks(value.get("benchmarks")))
        training = _mapping(value, "training")
        self._override(TrainingSpec(learning_rate=1.0), training, ("training",))
        methods = [
            variant
            for label, entry in _mapping(value, "methods").items()
            for variant in self._method(label, entry, training)
        ]
        name = self._name(value.get("name"))
        if top is not None and top.store is not None:
            try:
                check_address(top.store)
                if "://" not in top.store:
                    expanded(top.store)
            except ValueError as error:
                self._source.fault(("store",), str(error))
        # With faulty seeds any seed will do to find what is wrong with the scales.
        cells = tuple(self._cells(methods, benchmarks, top.seeds if top is not None else (0,)))
        self._reference(value.get("reference"), methods)
        self._source.raise_faults()
        assert top is not None
        return Sweep(
            name=name,
            store=top.store,
            cells=cells,
            resources=resources,
            reference=top.reference,
            keep_weights=top.keep_weights,
        )

    def _reference(self, label: Any, variants: Sequence[_Variant]) -> None:
        """A reference is one row of the table."""
        labels = _mapping(self._source.value, "methods")
        self._null_label(label, labels, ("reference",))
        if not isinstance(label, str) or not labels:
            return  # none is given, or the fault is reported elsewhere
        own = [variant for variant in variants if variant.label == label]
        if label not in labels:
            self._source.unknown(("reference",), label, labels)
        elif len(own) > 1 or any(len(variant.scales) > 1 for variant in own):
            self._source.fault(
                ("reference",), f"expected a method with one scale and no variants to compare with; {label!r} has more"
            )

    def _name(self, given: Any) -> str:
        name = given if isinstance(given, str) else self._source.file.stem
        if not NAME.fullmatch(name):
            expected = "expected at most 100 letters, digits, '.', '_' and '-', since files are named by it"
            if isinstance(given, str):
                self._source.fault(("name",), f"{expected}; given {name!r}")
            else:
                self._source.fault((), f"add a `name:`, since the file's own does not do: {expected}; given {name!r}")
        return name

    def _benchmarks(self, value: Any) -> Iterator[tuple[str, BenchmarkSpec]]:
        place: KeyPath = ("benchmarks",)
        if isinstance(value, list) and value:
            self._unique(value, place)
            for index, name in enumerate(value):
                if isinstance(name, str) and name in PRESETS:
                    yield name, PRESETS[name]
                else:
                    self._source.unknown((*place, index), self._name_at((*place, index), name), PRESETS)
        elif isinstance(value, dict) and value:
            for label, settings in value.items():
                benchmark = self._benchmark(label, {} if settings is None else settings, (*place, label))
                self._label(label, (*place, label))
                if label in _RESERVED_LABELS:
                    self._source.fault(
                        (*place, label), f"expected another label: the table has a column called {label!r}"
                    )
                if benchmark is not None:
                    yield label, benchmark
        elif value is not None or "benchmarks" in self._source.value:
            self._source.fault(place, "expected at least one benchmark: a list of presets, or labels with settings")

    def _benchmark(self, label: str, settings: Any, place: KeyPath) -> BenchmarkSpec | None:
        if not isinstance(settings, dict):
            self._source.fault(
                place, f"expected settings such as {{preset: r-mnist, num_tasks: 6}}, given {settings!r}"
            )
            return None
        changes = {key: value for key, value in settings.items() if key not in ("preset", "kind")}
        if "kind" in settings and "preset" in settings:
            self._source.fault(place, "expected either preset or kind, given both; remove one")
            return None
        if "kind" in settings:
            kind = settings["kind"]
            if not isinstance(kind, str) or kind not in BENCHMARKS:
                self._source.unknown((*place, "kind"), self._name_at((*place, "kind"), kind), BENCHMARKS)
                return None
            base: BenchmarkSpec = BENCHMARKS[kind].spec()
        else:
            preset = settings.get("preset", label)
            if not isinstance(preset, str) or preset not in PRESETS:
                if "preset" in settings:
                    self._source.unknown((*place, "preset"), self._name_at((*place, "preset"), preset), PRESETS)
                else:
                    self._source.unknown(place, label, PRESETS, "; another label needs a preset or a kind")
                return None
            base = PRESETS[preset]
        return self._override(base, changes, place)

    def _method(self, label: str, value: Any, training: Mapping[str, Any]) -> Iterator[_Variant]:
        """The variants of an entry under `methods`, each with its own settings resolved."""
        place: KeyPath = ("methods", label)
        self._label(label, place)
        if not isinstance(value, dict):
            self._source.fault(place, f"expected an entry such as {{scales: [FC256]}}, given {value!r}")
            return
        num_faults = len(self._source.faults)
        entry = self._read(_MethodEntry, value, place)
        name = value.get("method", label)
        if not isinstance(name, str) or name not in METHODS:
            here = (*place, "method") if "method" in value else place
            self._source.unknown(here, self._name_at(here, name), METHODS)
            return
        scales = entry.scales if entry is not None else ()
        self._unique(scales, (*place, "scales"))
        method: MethodSpec = METHODS[name].spec()
        # A method's own training differs between families of networks. Without scales any will do to find faults.
        trainings = {scale: method.training(scale) for scale in scales or ("FC256",)}
        trainings = self._override_each(trainings, training, ("training",))
        trainings = self._override_each(trainings, _mapping(value, "training"), (*place, "training"))
        method = self._override(method, _mapping(value, "settings"), (*place, "settings"))
        is_sound = len(self._source.faults) == num_faults
        variants = value.get("variants")
        self._base(value, place)
        overrides: dict[str | None, Any] = variants if isinstance(variants, dict) else {None: {}}
        if self._too_many(len(scales) * len(overrides), place):
            return
        for variant, given in overrides.items():
            here = place if variant is None else (*place, "variants", variant)
            num_faults = len(self._source.faults)
            if variant is not None:
                self._label(variant, here)
            changes = {} if given is None else given
            if not isinstance(changes, dict):
                self._source.fault(here, f"expected overrides such as {{settings: {{...}}}}, given {changes!r}")
                continue
            self._read(_Overrides, changes, here)
            overridden = self._override(method, _mapping(changes, "settings"), (*here, "settings"))
            retrained = self._override_each(trainings, _mapping(changes, "training"), (*here, "training"))
            yield _Variant(
                label=label,
                variant=variant or "",
                scales=scales,
                benchmarks=entry.benchmarks if entry is not None else None,
                group_size=entry.group_size if entry is not None else None,
                base=entry.base if entry is not None else None,
                method=overridden,
                trainings=retrained,
                entry=place,
                place=here,
                is_sound=is_sound and len(self._source.faults) == num_faults,
            )

    def _base(self, entry: Mapping[str, Any], place: KeyPath) -> None:
        """An ablation's base is one of the entry's variants, and there is another to compare with it."""
        base, variants = entry.get("base"), entry.get("variants")
        self._null_label(base, _mapping(entry, "variants"), (*place, "base"))
        if not isinstance(base, str):
            return  # none is given, or the fault is reported elsewhere
        if not isinstance(variants, dict) or not variants:
            self._source.fault((*place, "base"), "expected variants beside it, one of which it names; given none")
        elif base not in variants:
            self._source.unknown((*place, "base"), base, variants)
        elif len(variants) == 1:
            self._source.fault((*place, "base"), f"expected variants to compare with {base!r}; given no other")

    def _cells(
        self, variants: Sequence[_Variant], benchmarks: Mapping[str, BenchmarkSpec], seeds: Sequence[int]
    ) -> Iterator[Cell]:
        self._unique(seeds, ("seeds",))
        asked: dict[str, str] = {}
        grid = [(variant, self._chosen(variant, benchmarks)) for variant in variants]
        if self._too_many(sum(len(variant.scales) * len(chosen) for variant, chosen in grid) * len(seeds), ()):
            return
        for variant, chosen in grid:
            for index, scale in enumerate(variant.scales):
                for benchmark, spec in chosen.items():
                    trials = self._trials(variant, index, spec, seeds)
                    if not trials:
                        continue
                    where = f"{show_path(variant.place)} at {scale} on {benchmark}"
                    first = asked.setdefault(trials[0].trial_id, where)
                    if first != where and variant.is_sound:  # what was left out may be what sets it apart
                        self._source.fault(
                            variant.place, f"asks for the same trials twice: {where} equals {first}; remove one"
                        )
                    yield Cell(
                        method=variant.label,
                        variant=variant.variant,
                        scale=scale,
                        benchmark=benchmark,
                        trials=trials,
                        group_size=variant.group_size,
                        base=variant.base,
                    )

    def _chosen(self, variant: _Variant, benchmarks: Mapping[str, BenchmarkSpec]) -> Mapping[str, BenchmarkSpec]:
        """The benchmarks that an entry is for: all, or those it names."""
        if variant.benchmarks is None:
            return benchmarks
        self._unique(variant.benchmarks, (*variant.entry, "benchmarks"))
        for index, label in enumerate(variant.benchmarks):
            if label not in benchmarks:
                self._source.unknown((*variant.entry, "benchmarks", index), label, benchmarks)
        return {label: spec for label, spec in benchmarks.items() if label in variant.benchmarks}

    def _trials(
        self, variant: _Variant, scale: int, benchmark: BenchmarkSpec, seeds: Sequence[int]
    ) -> tuple[TrialSpec, ...]:
        try:
            trials = tuple(
                TrialSpec(
                    method=variant.method,
                    benchmark=benchmark,
                    scale=variant.scales[scale],
                    seed=seed,
                    training=variant.trainings[variant.scales[scale]],
                )
                for seed in dict.fromkeys(seeds)
            )
        except ScaleError as error:
            self._source.fault((*variant.entry, "scales", scale), str(error))
            return ()
        except ValueError as error:
            self._source.fault(variant.place, str(error))
            return ()
        if variant.group_size is not None:
            try:
                check_group_size(variant.group_size, trials[0].blueprint(), benchmark.problem().num_tasks)
            except ValueError as error:
                self._source.fault((*variant.entry, "group_size"), str(error).removeprefix("group_size: "))
        return trials

    def _too_many(self, num_trials: int, place: KeyPath) -> bool:
        """Notes it where a part of the file alone asks for more trials than a sweep may have."""
        if num_trials > MAX_TRIALS:
            self._source.fault(
                place, f"expected at most {MAX_TRIALS:,} trials, given lists that make {num_trials:,}; split the sweep"
            )
        return num_trials > MAX_TRIALS

    def _name_at(self, place: KeyPath, value: Any) -> str:
        """What stands in the place of a name: the text, or what the file has where YAML reads something else."""
        return value if isinstance(value, str) else self._source.written.get(place, str(value))

    def _null_label(self, given: Any, labels: Mapping[str, Any], place: KeyPath) -> None:
        """A label may be `null`, but a value that is written so is none."""
        if given is None and self._source.written.get(place) in labels:
            self._source.fault(place, f"expected a label; given nothing; {self._source.in_quotes(place, given)}")

    def _label(self, label: str, place: KeyPath) -> None:
        """Labels are names in tables, figures and lines."""
        if not label.strip() or not label.isprintable():
            self._source.fault(place, f"expected a label of printable characters on one line, given {label!r}")
        elif len(label) > MAX_LABEL:
            self._source.fault(place, f"expected a label of at most {MAX_LABEL} characters, given {len(label):,}")

    def _unique(self, values: Sequence[Any], place: KeyPath) -> None:
        seen = set()
        for index, value in enumerate(values):
            if repr(value) in seen:  # lists, which no set takes, are among what a file may hold
                self._source.fault((*place, index), f"asks for the same trials twice: {value!r} is repeated; remove it")
            seen.add(repr(value))

    def _read(self, cls: type[T], value: Mapping[str, Any], place: KeyPath) -> T | None:
        return typed.read(self._source, cls, value, place)

    def _override_each(self, bases: Mapping[str, T], changes: Mapping[str, Any], place: KeyPath) -> dict[str, T]:
        changed = {base: self._override(base, changes, place) for base in dict.fromkeys(bases.values())}
        return {name: changed[base] for name, base in bases.items()}

    def _override(self, base: T, changes: Mapping[str, Any], place: KeyPath) -> T:
        return typed.override(self._source, base, changes, place)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """A method with all its settings resolved, before scales, benchmarks and seeds.

    Attributes:
        label: the entry's key under `methods`.
        variant: the key under `variants`, empty where there are none.
        scales: the entry's.
        benchmarks: the labels that the entry is for; None for all.
        group_size: the entry's.
        base: the entry's.
        method: the method's settings.
        trainings: the training settings, by scale.
        entry: the entry's place in the file.
        place: the variant's.
        is_sound: whether none of its overrides was left out for a fault.
    """

    label: str
    variant: str
    scales: tuple[str, ...]
    benchmarks: tuple[str, ...] | None
    group_size: int | None
    base: str | None
    method: MethodSpec
    trainings: Mapping[str, TrainingSpec]
    entry: KeyPath
    place: KeyPath
    is_sound: bool


def _mapping(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A part of the file, or nothing where it is absent or of the wrong type, which is reported elsewhere."""
    part = value.get(key)
    return part if isinstance(part, dict) else {}
