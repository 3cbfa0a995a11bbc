"""Reads sweep files: YAML in, a `Sweep` out. All faults of a file are reported at once, each with its place.

    name: example                        # optional; default: the file's name
    store: runs/shared                   # optional; sweeps with the same store share their common trials
    seeds: [0, 1, 2]
    benchmarks:                          # a list of presets, or labels with settings
      r-mnist:                           # a preset needs no settings
      six rotations: {preset: r-mnist, num_tasks: 6}
      own: {kind: permuted, base: digits, num_tasks: 12}
    methods:                             # a method's name, or a label with `method:`
      supsup: {scales: [FC256]}
      er: {network: small_vit}           # a plug-in's network; it can also be listed under scales
      neuromodnet:
        scales: [FC256, FC1024]
        settings: {initial_strength: 1.0}
        training: {learning_rate: 0.01}
        group_size: 8                    # optional; limits the number of tasks learned at once
        base: both                       # optional; for an ablation: the variant with which the others are compared
        variants:                        # all run; a variant overrides settings and training
          both: {}
          local: {settings: {modulation: local}}
    training: {updates_per_task: 1000}   # for every method
    reference: supsup                    # optional; show params/task relative to this method
    data:                                # base sets of your own images, see own_data.py
      birds: {kind: folder, path: photos/birds, size: 64}
    keep_weights: false                  # whether trained weights are stored with the contexts
    plugins: [my_method.py]              # files in the same folder; their code runs only with --plugin my_method.py
    resources: {gpus: 0.25, cpus: 1}     # per trial; not part of its identity

Omitted settings are the paper's; `updates_per_task` replaces a method's own `epochs_per_task`, and vice
versa. The grid is methods x variants x scales x benchmarks x seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import MinLen

from crwn.benchmarks import BENCHMARKS, PRESETS
from crwn.faults import InvalidError
from crwn.paths import expanded
from crwn.plugins import DefinedSet
from crwn.spec import READ_STRICTLY, BenchmarkSpec, Index, TrainingSpec
from orchestrator.errors import UserError
from orchestrator.store.address import check_address
from orchestrator.store.manifests import NAME
from orchestrator.sweeps import grid, own_data, plugin_files, typed, yaml_source
from orchestrator.sweeps.changes import make
from orchestrator.sweeps.faults import (
    check_distinct,
    check_label,
    check_null_label,
    is_known,
    mapping,
    name_at,
)
from orchestrator.sweeps.places import KeyPath
from orchestrator.sweeps.sweep import Resources, Sweep
from orchestrator.sweeps.variants import Variant, variants_of
from orchestrator.sweeps.yaml_source import Source

SWEEPS_FOLDER = "sweeps"
"""The folder in which a project keeps its sweeps."""

_RESERVED_LABELS = (
    *("method", "variant", "scale", "network", "params/task", "ratio", "s/task"),
    *("masked", "forgetting", "examples kept"),
)
"""Other columns of tables with one column per benchmark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """The file's top level; its nested parts are validated separately."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    seeds: Annotated[tuple[Index, ...], MinLen(1)]
    benchmarks: Any
    methods: Annotated[dict[str, Any], MinLen(1)]
    name: str | None = None
    store: Annotated[str, MinLen(1)] | None = None
    reference: str | None = None
    keep_weights: bool = False
    plugins: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)


def load_sweep(
    file: Path,
    *,
    changes: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    plugins: Sequence[str | Path] = (),
) -> Sweep:
    """Read and validate a sweep file.

    Args:
        file: the file.
        changes: changes of its settings, such as `methods.supsup.training.learning_rate=0.001`; see `changes.py`.
        seeds: the seeds of the trials to run, out of the sweep's; None for all.
        plugins: the plug-in files that it lists under `plugins`: their code is run.

    Raises:
        UserError: the file cannot be read, or has faults, all listed in the message; or a seed or a plug-in is not
            the sweep's.
    """
    try:
        place = expanded(file)
    except InvalidError as error:
        raise UserError(error.codes, f"{error}.") from error
    if not place.exists() and (found := elsewhere(place)) is not None:
        raise UserError("file-elsewhere", f"{file}: expected a file, but there is none; there is {found}")
    sweep = _sweep(yaml_source.read(place), changes, plugins)
    return sweep if seeds is None else sweep.only(seeds)


def elsewhere(file: Path) -> Path | None:
    """The sweep probably meant by a nonexistent path: sweeps may move, for instance into a paper's folder.

    Args:
        file: the path.

    Returns:
        Among the files of the same name below the folder `sweeps` in the path, or else in the working directory, the
        one whose folders are most similar to the path's; None if there is none.
    """
    through = [parent for parent in file.parents if parent.name == SWEEPS_FOLDER]
    folder = next((parent for parent in [*through, Path(SWEEPS_FOLDER)] if parent.is_dir()), None)
    if folder is None or not file.name:
        return None
    found = [path for path in folder.rglob("*") if path.name == file.name and path.is_file()]

    def unlikeness(path: Path) -> tuple[int, int, str]:
        return -len(set(path.parent.parts) & set(file.parent.parts)), len(path.parts), str(path)

    return min(found, key=unlikeness, default=None)


def _sweep(source: Source, changes: Sequence[str], named: Sequence[str | Path]) -> Sweep:
    """The sweep of a parsed file; faults are collected on the way, and raised at the end."""
    value = source.value
    if not isinstance(value, dict):
        source.fault((), "not-a-sweep", "expected a sweep: keys such as seeds, benchmarks and methods")
        source.raise_faults()
    make(source, changes)
    top = typed.read(source, _File, value, ())
    files = plugin_files.load(source, value.get("plugins"), named)
    sets = own_data.read(source, mapping(value, "data"))
    # Parts are read from the raw values, so that faults at the top do not hide those below.
    resources = typed.override(source, Resources(), mapping(value, "resources"), ("resources",))
    benchmarks = dict(_benchmarks(source, value.get("benchmarks"), sets))
    training = mapping(value, "training")
    typed.override(source, TrainingSpec(learning_rate=1.0), training, ("training",))
    methods = [
        variant
        for label, entry in mapping(value, "methods").items()
        for variant in variants_of(source, label, entry, training)
    ]
    name = _name(source, value.get("name"))
    if top is not None and top.store is not None:
        try:
            check_address(top.store)
            if "://" not in top.store:
                expanded(top.store)
        except InvalidError as error:
            source.fault(("store",), error.codes, str(error))
    # If the seeds are faulty, any seed will do to find faults of the scales.
    cells = tuple(grid.cells(source, methods, benchmarks, top.seeds if top is not None else (0,)))
    _reference(source, value.get("reference"), methods)
    source.raise_faults()
    assert top is not None
    return Sweep(
        name=name,
        store=top.store,
        cells=cells,
        resources=resources,
        reference=top.reference,
        keep_weights=top.keep_weights,
        changes=tuple(changes),
        plugins=(*files, *plugin_files.installed(cells), *own_data.used(sets, cells)),
    )


def _reference(source: Source, label: Any, variants: Sequence[Variant]) -> None:
    """Check that the reference is one row of the table."""
    labels = mapping(source.value, "methods")
    check_null_label(source, label, labels, ("reference",))
    if not isinstance(label, str) or not labels:
        return  # not given, or the fault is reported elsewhere
    own = [variant for variant in variants if variant.label == label]
    if label not in labels:
        source.unknown(("reference",), label, labels)
    elif len(own) > 1 or any(len(variant.scales) > 1 for variant in own):
        message = f"expected a method with one scale and no variants to compare with; {label!r} has more"
        source.fault(("reference",), "reference-is-several", message)


def _name(source: Source, given: Any) -> str:
    """The sweep's name: by default, the file's."""
    name = given if isinstance(given, str) else source.file.stem
    if not NAME.fullmatch(name):
        expected = "expected at most 100 letters, digits, '.', '_' and '-', since files are named by it"
        if isinstance(given, str):
            source.fault(("name",), "name-no-filename", f"{expected}; given {name!r}")
        else:
            message = f"add a `name:`, since the file's own is not valid: {expected}; given {name!r}"
            source.fault((), "name-no-filename", message)
    return name


def _benchmarks(
    source: Source, value: Any, sets: Mapping[str, DefinedSet | None]
) -> Iterator[tuple[str, BenchmarkSpec]]:
    place: KeyPath = ("benchmarks",)
    if isinstance(value, list) and value:
        check_distinct(source, value, place)
        for index, name in enumerate(value):
            if isinstance(name, str) and name in PRESETS:
                yield name, PRESETS[name]
            else:
                source.unknown((*place, index), name_at(source, (*place, index), name), PRESETS)
    elif isinstance(value, dict) and value:
        for label, settings in value.items():
            benchmark = benchmark_at(source, label, {} if settings is None else settings, (*place, label), sets)
            check_label(source, label, (*place, label))
            if label in _RESERVED_LABELS:
                message = f"expected another label: the table has a column called {label!r}"
                source.fault((*place, label), "label-reserved", message)
            if benchmark is not None:
                yield label, benchmark
    elif value is not None or "benchmarks" in source.value:
        source.fault(
            place, "no-benchmark", "expected at least one benchmark: a list of presets, or labels with settings"
        )


def benchmark_at(
    source: Source, label: str, settings: Any, place: KeyPath, sets: Mapping[str, DefinedSet | None]
) -> BenchmarkSpec | None:
    """A benchmark from its label and settings; None after noting its faults.

    Args:
        source: the file, which collects faults.
        label: its label: a preset's name, unless the settings say which preset or kind it is.
        settings: its settings, as read.
        place: their place in the file.
        sets: base sets of the file's own, by name.
    """
    if not isinstance(settings, dict):
        message = f"expected settings such as {{preset: r-mnist, num_tasks: 6}}, given {settings!r}"
        source.fault(place, "wrong-type", message)
        return None
    changes = {key: value for key, value in settings.items() if key not in ("preset", "kind")}
    if "kind" in settings and "preset" in settings:
        source.fault(place, "preset-and-kind", "expected either preset or kind, given both; remove one")
        return None
    if "kind" in settings:
        kind = settings["kind"]
        if not is_known(source, BENCHMARKS, kind, (*place, "kind")):
            return None
        base: BenchmarkSpec = BENCHMARKS[kind].spec()
    else:
        preset = settings.get("preset", label)
        if not isinstance(preset, str) or preset not in PRESETS:
            if "preset" in settings:
                source.unknown((*place, "preset"), name_at(source, (*place, "preset"), preset), PRESETS)
            else:
                source.unknown(place, label, PRESETS, "; another label needs a preset or a kind")
            return None
        base = PRESETS[preset]
    if "base" in changes and not own_data.has_resolved(source, changes, (*place, "base"), sets):
        return None
    return typed.override(source, base, changes, place)
