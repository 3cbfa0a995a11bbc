"""A sweep's grid: variants x scales x benchmarks x seeds, as cells of trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from crwn.faults import InvalidError, codes_of
from crwn.methods.protocol import ScaleError
from crwn.spec import BenchmarkSpec, check_group_size
from crwn.trial_spec import TrialSpec, check_network
from orchestrator.sweeps.faults import check_distinct, has_too_many
from orchestrator.sweeps.places import show_path
from orchestrator.sweeps.sweep import Cell
from orchestrator.sweeps.variants import Variant
from orchestrator.sweeps.yaml_source import Source


def cells(
    source: Source, variants: Sequence[Variant], benchmarks: Mapping[str, BenchmarkSpec], seeds: Sequence[int]
) -> Iterator[Cell]:
    """The cells of a sweep, in the order of its file.

    Args:
        source: the file, which collects faults.
        variants: the variants of its methods.
        benchmarks: benchmarks by their labels in the file.
        seeds: the seeds of each cell.
    """
    check_distinct(source, seeds, ("seeds",))
    asked: dict[str, str] = {}
    faulty = {fault.path[1] for fault in source.faults if fault.path[:1] == ("benchmarks",) and len(fault.path) > 1}
    grid = [(variant, _chosen(source, variant, benchmarks)) for variant in variants]
    if has_too_many(source, sum(len(variant.scales) * len(chosen) for variant, chosen in grid) * len(seeds), ()):
        return
    for variant, chosen in grid:
        for index, scale in enumerate(variant.scales):
            for benchmark, spec in chosen.items():
                trials = _trials(source, variant, index, spec, seeds)
                if not trials:
                    continue
                where = f"{show_path(variant.place)} at {scale} on {benchmark}"
                is_sound = variant.is_sound and benchmark not in faulty  # a setting left out for a fault may differ
                first = asked.setdefault(trials[0].trial_id, where) if is_sound else where
                if first != where:
                    message = f"requests the same trials twice: {where} equals {first}; remove one"
                    source.fault(variant.place, "same-trials-twice", message)
                yield Cell(
                    method=variant.label,
                    variant=variant.variant,
                    scale=scale,
                    benchmark=benchmark,
                    trials=trials,
                    group_size=variant.group_size,
                    base=variant.base,
                )


def _chosen(source: Source, variant: Variant, benchmarks: Mapping[str, BenchmarkSpec]) -> Mapping[str, BenchmarkSpec]:
    """The benchmarks of an entry: all, or those that it names."""
    if variant.benchmarks is None:
        return benchmarks
    check_distinct(source, variant.benchmarks, (*variant.entry, "benchmarks"))
    for index, label in enumerate(variant.benchmarks):
        if label not in benchmarks:
            source.unknown((*variant.entry, "benchmarks", index), label, benchmarks)
    return {label: spec for label, spec in benchmarks.items() if label in variant.benchmarks}


def _trials(
    source: Source, variant: Variant, scale: int, benchmark: BenchmarkSpec, seeds: Sequence[int]
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
        for trial in trials[:1]:
            check_network(trial)
    except ScaleError as error:
        source.fault(variant.scale_places[scale], error.codes, str(error))
        return ()
    except ValueError as error:
        source.fault(variant.place, codes_of(error, "setting-refused"), str(error))
        return ()
    if variant.group_size is not None:
        try:
            check_group_size(variant.group_size, trials[0].blueprint(), benchmark.problem().num_tasks)
        except InvalidError as error:
            source.fault((*variant.entry, "group_size"), error.codes, str(error).removeprefix("group_size: "))
    return trials
