"""The entries under `methods` in a sweep file: each variant with all settings resolved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, TypeVar

from annotated_types import MinLen

from crwn.methods import METHODS
from crwn.plugins import PluginError, find_network
from crwn.spec import READ_STRICTLY, Count, MethodSpec, TrainingSpec
from orchestrator.sweeps import typed
from orchestrator.sweeps.faults import check_distinct, check_label, check_null_label, has_too_many, is_known, mapping
from orchestrator.sweeps.places import KeyPath
from orchestrator.sweeps.yaml_source import Source

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A method with all settings resolved, before scales, benchmarks and seeds.

    Attributes:
        label: the entry's key under `methods`.
        variant: the key under `variants`, empty if there are none.
        scales: the entry's scales.
        scale_places: their places in the file.
        benchmarks: the labels of the entry's benchmarks; None: all.
        group_size: the entry's group size.
        base: the entry's base.
        method: the method's settings.
        trainings: the training settings, by scale.
        entry: the entry's place in the file.
        place: the variant's place in the file.
        is_sound: whether no override was left out because of a fault.
    """

    label: str
    variant: str
    scales: tuple[str, ...]
    scale_places: tuple[KeyPath, ...]
    benchmarks: tuple[str, ...] | None
    group_size: int | None
    base: str | None
    method: MethodSpec
    trainings: Mapping[str, TrainingSpec]
    entry: KeyPath
    place: KeyPath
    is_sound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overrides:
    """The overrides of a variant."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _MethodEntry:
    """An entry under `methods`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    scales: Annotated[tuple[str, ...], MinLen(1)] = ()
    network: str | None = None
    benchmarks: Annotated[tuple[str, ...], MinLen(1)] | None = None
    method: str | None = None
    group_size: Count | None = None
    base: str | None = None
    variants: Annotated[dict[str, Any], MinLen(1)] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def variants_of(source: Source, label: str, value: Any, training: Mapping[str, Any]) -> Iterator[Variant]:
    """The variants of an entry under `methods`, each with its settings resolved."""
    place: KeyPath = ("methods", label)
    check_label(source, label, place)
    if not isinstance(value, dict):
        source.fault(place, "wrong-type", f"expected an entry such as {{scales: [FC256]}}, given {value!r}")
        return
    num_faults = len(source.faults)
    entry = typed.read(source, _MethodEntry, value, place)
    name = value.get("method", label)
    if not is_known(source, METHODS, name, (*place, "method") if "method" in value else place):
        return
    assert isinstance(name, str)
    sited = _scales(source, value, entry, place)
    scales = tuple(scale for scale, _ in sited)
    method: MethodSpec = METHODS[name].spec()
    # A method's own training settings depend on the family of networks. Without scales, any will do to find faults.
    trainings = {scale: method.training(scale) for scale in scales or ("FC256",)}
    trainings = _override_each(source, trainings, training, ("training",))
    trainings = _override_each(source, trainings, mapping(value, "training"), (*place, "training"))
    method = typed.override(source, method, mapping(value, "settings"), (*place, "settings"))
    is_sound = len(source.faults) == num_faults
    variants = value.get("variants")
    _base(source, value, place)
    overrides: dict[str | None, Any] = variants if isinstance(variants, dict) else {None: {}}
    if has_too_many(source, len(scales) * len(overrides), place):
        return
    for variant, given in overrides.items():
        here = place if variant is None else (*place, "variants", variant)
        num_faults = len(source.faults)
        if variant is not None:
            check_label(source, variant, here)
        changes = {} if given is None else given
        if not isinstance(changes, dict):
            message = f"expected overrides such as {{settings: {{...}}}}, given {changes!r}"
            source.fault(here, "wrong-type", message)
            continue
        typed.read(source, _Overrides, changes, here)
        overridden = typed.override(source, method, mapping(changes, "settings"), (*here, "settings"))
        retrained = _override_each(source, trainings, mapping(changes, "training"), (*here, "training"))
        yield Variant(
            label=label,
            variant=variant or "",
            scales=scales,
            scale_places=tuple(where for _, where in sited),
            benchmarks=entry.benchmarks if entry is not None else None,
            group_size=entry.group_size if entry is not None else None,
            base=entry.base if entry is not None else None,
            method=overridden,
            trainings=retrained,
            entry=place,
            place=here,
            is_sound=is_sound and len(source.faults) == num_faults,
        )


def _scales(
    source: Source, value: Mapping[str, Any], entry: _MethodEntry | None, place: KeyPath
) -> list[tuple[str, KeyPath]]:
    """The scales of an entry, or its network, which is one; each with its place. Networks are looked up."""
    if "scales" in value and "network" in value:
        message = "expected either scales or network, given both: scales: [FC256, my_network] names several"
        source.fault((*place, "network"), "network-and-scales", message)
    elif "scales" not in value and "network" not in value:
        source.fault((*place, "scales"), "missing-key", "expected this key or network, given neither; add one")
    if entry is None:
        return []
    check_distinct(source, entry.scales, (*place, "scales"))
    given = [(scale, (*place, "scales", index)) for index, scale in enumerate(entry.scales)]
    if entry.network is not None and not given:
        given = [(entry.network, (*place, "network"))]
    sound: list[tuple[str, KeyPath]] = []
    for scale, where in given:
        try:
            find_network(scale)
            sound.append((scale, where))
        except PluginError as error:
            source.fault(where, error.codes, str(error))
    return sound


def _base(source: Source, entry: Mapping[str, Any], place: KeyPath) -> None:
    """Check that an ablation's base is one of the entry's variants, and that another is compared with it."""
    base, variants = entry.get("base"), entry.get("variants")
    check_null_label(source, base, mapping(entry, "variants"), (*place, "base"))
    if not isinstance(base, str):
        return  # not given, or the fault is reported elsewhere
    if not isinstance(variants, dict) or not variants:
        message = "expected the name of one of the entry's variants, but it has none"
        source.fault((*place, "base"), "base-without-variants", message)
    elif base not in variants:
        source.unknown((*place, "base"), base, variants)
    elif len(variants) == 1:
        message = f"expected variants to compare with {base!r}; given no other"
        source.fault((*place, "base"), "base-alone", message)


def _override_each(source: Source, bases: Mapping[str, T], changes: Mapping[str, Any], place: KeyPath) -> dict[str, T]:
    changed = {base: typed.override(source, base, changes, place) for base in dict.fromkeys(bases.values())}
    return {name: changed[base] for name, base in bases.items()}
