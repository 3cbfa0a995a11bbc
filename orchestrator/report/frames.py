"""The store's rows as DataFrames, with their JSON expanded into columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from crwn.benchmarks import benchmark_name
from crwn.methods import METHODS
from orchestrator.report.aggregate import records
from orchestrator.store import compatibility
from orchestrator.store.accepted import NOTHING, Accepted
from orchestrator.store.index import RESULTS_SCHEMA, results
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.recorded_spec import RecordedSpec
from orchestrator.store.rows import independent
from orchestrator.store.store import Store

NAMES = ("method", "variant", "scale", "benchmark")
"""Columns that name what a trial is of, in the store's own words."""


def read_trials(store: Store, trial_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """The finished trials of a store, see `trials_frame`; only the given ones, or all."""
    return trials_frame(results(store, trial_ids), store.accepted())


def trials_frame(table: pa.Table, accepted: Accepted = NOTHING) -> pd.DataFrame:
    """A frame with one row per finished trial.

    Args:
        table: rows of `index.RESULTS_SCHEMA`.
        accepted: which codes are accepted as equivalent in their store.

    Returns:
        The columns of `RESULTS_SCHEMA` without JSON, where final, learned and seen are arrays [T], benchmark is the
        preset's name, and independent is also set for older records; train_seconds_per_task; group_size; and the
        result of `compatibility.describe`: settings, crwn, backbones, numerics.device and so on.
    """
    texts = table.select(["spec", "numerics", "provenance", "fingerprint"]).to_pylist()
    trials: pd.DataFrame = table.drop_columns(["spec", "numerics", "provenance"]).to_pandas()
    described = pd.DataFrame(
        [compatibility.describe(**text, accepted=accepted) for text in texts], index=trials.index, dtype=object
    )
    for name in _DESCRIBED:
        trials[name] = described[name] if len(described) else pd.Series(dtype=object)
    trials["train_seconds_per_task"] = trials["train_seconds_per_task"].astype(float)
    trials["group_size"] = trials["numerics.group_size"].astype("Int64")
    said = zip(table["grouping"].to_pylist(), table["independent"].to_pylist(), strict=True)
    trials["independent"] = pd.Series([independent(*each) for each in said], index=trials.index, dtype=bool)
    trials["benchmark"] = [benchmark_name(RecordedSpec.from_index(text["spec"]).benchmark) for text in texts]
    for name in ("examples_kept", "stored_memory"):  # an older record has none
        trials[name] = trials[name].fillna(0).astype(int)
    return trials


_DESCRIBED = (
    "train_seconds_per_task",
    *compatibility.DESCRIBED,
    *compatibility.COUNTS_AS_ONE.values(),
    compatibility.CODE_CHANGES,
)


def empty_frame() -> pd.DataFrame:
    """The `trials_frame` of no trials."""
    return trials_frame(RESULTS_SCHEMA.empty_table())


def asked_frame(manifests: Sequence[Manifest], trials: pd.DataFrame, sweep: str | None = None) -> pd.DataFrame:
    """A frame with one row per trial that is finished or requested, each once.

    Args:
        manifests: the store's manifests.
        trials: its finished trials, as returned by `trials_frame`.
        sweep: only this sweep's trials, under its own labels instead of the store's names.

    Returns:
        The columns of `trials`, and finished. Of an unfinished trial only the names, the seed and the settings are
        known: from its sweep's manifest, or, if an older crwn wrote the manifest, from a finished trial of its cell;
        if there is neither, its settings are None.
    """
    known = {row["trial_id"]: row for row in records(trials)}
    rows: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        if sweep is not None and manifest.name != sweep:
            continue
        for cell in manifest.cells:
            labels = cell.names if sweep is not None else {}
            missing = _of_cell(cell, known)
            for seed, trial_id in cell.trials.items():
                row = known.get(trial_id)
                found = {**missing, "trial_id": trial_id, "seed": seed} if row is None else row
                rows.setdefault(trial_id, {**found, **labels, "finished": row is not None})
    if sweep is None:
        for trial_id, row in known.items():
            rows.setdefault(trial_id, {**row, "finished": True})
    return pd.DataFrame(list(rows.values()), columns=[*trials.columns, "finished"])


def _of_cell(cell: ManifestCell, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What is known about a cell's trials before they finish."""
    for trial_id in cell.trials.values():
        if trial_id in known:
            return {name: known[trial_id][name] for name in (*NAMES, "settings")}
    if cell.spec is None:
        return {"settings": None}
    return {**names_of(cell.spec), "settings": compatibility.settings_of(cell.spec.values)}


def names_of(spec: RecordedSpec) -> dict[str, str]:
    """A spec's method, variant, scale and benchmark, as named in tables."""
    kind = spec.method_kind
    default = METHODS[kind].spec() if kind in METHODS else None
    changed = {name: value for name, value in spec.method_settings.items() if value != getattr(default, name, None)}
    return {
        "method": kind,
        "variant": ",".join(f"{name}={value}" for name, value in sorted(changed.items())),
        "scale": spec.scale,
        "benchmark": benchmark_name(spec.benchmark),
    }
