"""The Python interface: what `import crwn` offers beyond the science. Heavy modules are imported on first use.

Errors that the user can fix are `UserError`; work that was started and not finished raises `UnfinishedError`. Neither
ends the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crwn.benchmarks import benchmark_name
from crwn.faults import FaultError, InvalidError, codes_of
from crwn.paths import expanded
from crwn.trial_spec import TrialSpec, check_network, used_by
from orchestrator.errors import UnfinishedError, UserError, nearest, shortened
from orchestrator.sweeps.places import FileFaultsError

if TYPE_CHECKING:
    from orchestrator.report.results import Results
    from orchestrator.sweeps.sweep import Cell, Sweep

__all__ = ["TrialSpec", "UnfinishedError", "UserError", "load_sweep", "open_store", "run"]

DEFAULT_STORE = "runs/python"
"""The default store of trials run without a sweep."""

ARGUMENTS = {
    "--cpus": "resources['cpus']",
    "--data-root": "data_root",
    "--executor": "executor",
    "--gpus": "resources['gpus']",
    "--out": "store",
    "--plugin": "plugins",
    "--seeds": "seeds",
    "--set": "changes",
}
"""The Python names of command-line options that errors mention."""

_OPTION = re.compile(rf"(?<![\w-])({'|'.join(ARGUMENTS)})(?![\w-])")
_OPTION_WITH_FILE = re.compile(r"(?<![\w-])(--plugin) (\S+\.py)")


@contextlib.contextmanager
def _as_arguments() -> Iterator[None]:
    """Make errors name Python arguments instead of command-line options."""
    try:
        yield
    except FaultError as error:
        message = _with_arguments(str(error))
        if isinstance(error, FileFaultsError):
            faults = [dataclasses.replace(fault, message=_with_arguments(fault.message)) for fault in error.faults]
            error.faults = tuple(faults)
            error.args = (error.faults, message)
        else:
            error.args = (*error.args[:-1], message)
        raise


def _with_arguments(message: str) -> str:
    """A message with the Python names of command-line options; a file after one is quoted."""
    in_python = _OPTION_WITH_FILE.sub(lambda found: f"{ARGUMENTS[found[1]]}=[{found[2]!r}]", message)
    return _OPTION.sub(lambda found: ARGUMENTS[found[0]], in_python)


def open_store(store: str | Path) -> Results:
    """Open a store to read its results.

    Args:
        store: a folder such as runs/quickstart, or s3://bucket/prefix.

    Raises:
        UserError: there is no store, or it cannot be reached or read.
    """
    from orchestrator.report.results import Results  # noqa: PLC0415
    from orchestrator.store.store import Store  # noqa: PLC0415

    with _as_arguments():
        return Results(Store.existing(_path("store", store)))


def load_sweep(file: str | Path, *, changes: Iterable[str] = (), plugins: Iterable[str | Path] = ()) -> Sweep:
    """Read a sweep's YAML file; its fully specified trials are in `trials`.

    Args:
        file: its path.
        changes: settings to override, as with `--set`: `training.updates_per_task=100`.
        plugins: those of its plug-in files whose code may run, as with `--plugin`.

    Raises:
        UserError: the file cannot be read, or has faults; the message lists all of them.
    """
    from orchestrator.sweeps import reading  # noqa: PLC0415

    given = _all(
        file=lambda: _path("file", file),
        changes=lambda: [_text("changes", change) for change in _several(changes)],
        plugins=lambda: [_path("plugins", plugin) for plugin in _several(plugins)],
    )
    with _as_arguments():
        return reading.load_sweep(Path(given["file"]), changes=given["changes"], plugins=given["plugins"])


def run(
    work: Sweep | TrialSpec | Iterable[TrialSpec],
    *,
    store: str | Path | None = None,
    seeds: Iterable[int] | None = None,
    executor: Literal["inline", "ray"] | None = None,
    data_root: str | Path | None = None,
    resources: Mapping[str, float] | None = None,
    keep_weights: bool | None = None,
    tracking: bool = False,
) -> Results:
    """Compute the trials missing from the store, showing progress, as `crwn run` does; call it again to resume.

    A failed trial is reported, has the `status` failed, and does not stop the others. Ctrl-C, or stopping a notebook's
    cell, raises KeyboardInterrupt; everything up to the last resume point is kept.

    Args:
        work: a sweep (`load_sweep`), a trial, or several trials.
        store: a folder, or s3://bucket/prefix; default: the sweep's own, else runs/<sweep name>; for trials,
            runs/python.
        seeds: of a sweep, the seeds to run; trials are run once with each seed.
        executor: inline or ray; default: ray on a cluster or if more than a few trials are pending.
        data_root: folder to search for data sets first, before $CRWN_DATA and ~/.cache/crwn.
        resources: per trial, as in a sweep's file: gpus, a fraction or a whole number, and cpus.
        keep_weights: whether to store trained weights with the contexts; default: the sweep's setting.
        tracking: whether to log to MLflow, at $MLFLOW_TRACKING_URI or in mlflow.db next to the store; if not,
            `crwn sync` can do so later.

    Returns:
        The results in the store.

    Raises:
        UserError: a check before the start failed; nothing was started.
        UnfinishedError: something failed after the start, such as the disk; run again to resume.
    """
    from orchestrator import display  # noqa: PLC0415
    from orchestrator.execution import running  # noqa: PLC0415
    from orchestrator.execution.executors import EXECUTORS  # noqa: PLC0415
    from orchestrator.report.results import Results  # noqa: PLC0415
    from orchestrator.store.store import Store  # noqa: PLC0415

    with _as_arguments():
        given = _all(
            sweep=lambda: _with_seeds(work, seeds),
            store=lambda: None if store is None else _path("store", store),
            executor=lambda: _one_of("executor", executor, (None, *EXECUTORS)),
            data_root=lambda: _folder("data_root", data_root),
            resources=lambda: _resources(resources),
            keep_weights=lambda: _one_of("keep_weights", keep_weights, (None, True, False)),
            tracking=lambda: _one_of("tracking", tracking, (True, False)),
        )
        sweep = given["sweep"]
        if keep_weights is not None:
            sweep = dataclasses.replace(sweep, keep_weights=keep_weights)
        options = running.Options(
            data_root=given["data_root"], executor=executor, tracking=tracking, **given["resources"]
        )
        found = Store(sweep.address(given["store"]))
        running.run(sweep, found, options, display.console())
    return Results(found)


def _all(**makers: Callable[[], Any]) -> dict[str, Any]:
    """The results of the functions; all their faults are raised together."""
    found, faults = {}, []
    for name, make in makers.items():
        try:
            found[name] = make()
        except UserError as error:
            faults.append(error)
    if faults:
        raise UserError.of(faults, "\n".join(map(str, faults)))
    return found


def _sweep_of(work: Any) -> Sweep:
    """The sweep, or the trials as a sweep in which those that differ only in their seed form one cell."""
    from orchestrator.store.compatibility import settings_of  # noqa: PLC0415
    from orchestrator.sweeps.sweep import Resources, Sweep  # noqa: PLC0415

    if isinstance(work, Sweep):
        return work
    trials = [work] if isinstance(work, TrialSpec) else _several(work)
    if not trials or not all(isinstance(trial, TrialSpec) for trial in trials):
        raise UserError(
            "wrong-type",
            "work: expected a sweep, as crwn.load_sweep reads one, a TrialSpec, or several, given "
            f"{shortened(repr(work)) if trials else 'none'}",
        )
    try:
        for trial in trials:
            check_network(trial)
    except InvalidError as error:
        raise UserError(error.codes, f"work: {error}") from error
    cells = _cells(trials)
    settings = sorted(settings_of(json.loads(cell.trials[0].canonical_json())) for cell in cells)
    digest = hashlib.sha256("\n".join(settings).encode()).hexdigest()[:8]
    plugins = tuple(dict.fromkeys(plugin for cell in cells for plugin in used_by(cell.trials[0])))
    return Sweep(name=f"python-{digest}", store=DEFAULT_STORE, cells=cells, resources=Resources(), plugins=plugins)


def _cells(trials: Iterable[TrialSpec]) -> tuple[Cell, ...]:
    """Trials as cells of a table, each with a unique name."""
    from orchestrator.store.compatibility import flat, settings_of  # noqa: PLC0415
    from orchestrator.sweeps.sweep import Cell  # noqa: PLC0415

    groups: dict[str, list[TrialSpec]] = {}
    for trial in dict.fromkeys(trials):
        groups.setdefault(settings_of(json.loads(trial.canonical_json())), []).append(trial)
    named: dict[tuple[str, ...], list[str]] = {}
    for settings, group in groups.items():
        named.setdefault(_names(group[0]), []).append(settings)
    variants: dict[str, str] = {}
    for (_, variant, *_), alike in named.items():
        pairs = {settings: {f"{name}={value}" for name, value in flat(settings).items()} for settings in alike}
        common = set.intersection(*pairs.values())
        variants |= {each: ",".join(filter(None, (variant, *sorted(pairs[each] - common)))) for each in alike}
    cells = []
    for settings, group in groups.items():
        method, _, scale, benchmark = _names(group[0])
        cells.append(
            Cell(
                method=method,
                variant=variants[settings],
                scale=scale,
                benchmark=benchmark,
                trials=tuple(sorted(group, key=lambda trial: trial.seed)),
            )
        )
    return tuple(cells)


def _names(trial: TrialSpec) -> tuple[str, str, str, str]:
    """A trial's method, its settings that differ from the paper's, its scale and its benchmark."""
    benchmark = benchmark_name(json.loads(trial.canonical_json())["benchmark"])
    return trial.method.kind, trial.variant, trial.scale, benchmark


def _with_seeds(work: Any, seeds: Any) -> Sweep:
    """The work as a sweep: a sweep's trials with these seeds, or every trial with every seed."""
    if seeds is None:
        return _sweep_of(work)
    try:
        chosen = [operator.index(seed) for seed in _several(seeds)]
    except TypeError:
        chosen = []
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0:
        message = f"seeds: expected distinct whole numbers, given {shortened(repr(seeds))}"
        raise UserError("not-seeds", message)
    sweep = _sweep_of(work)
    if sweep is work:
        only: Sweep = sweep.only(chosen)
        return only
    return _sweep_of([dataclasses.replace(trial, seed=seed) for trial in sweep.requested for seed in chosen])


def _several(values: Any) -> list[Any]:
    """Several values as a list; a single value as a list of one."""
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping) else [values]


def _resources(given: Any) -> dict[str, float]:
    """The resources of each trial, by name."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UserError("wrong-type", f"resources: expected gpus and cpus by name, given {shortened(repr(given))}")
    if unknown := [str(name) for name in given if name not in ("gpus", "cpus")]:
        raise UserError("unknown-key", f"resources: {nearest(unknown[0], ('gpus', 'cpus'))}")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError("wrong-type", f"resources.{name}: expected a number, given {shortened(repr(value))}")
    return dict(given)


def _one_of(name: str, given: Any, choices: tuple[Any, ...]) -> Any:
    """A value that must be one of a few choices."""
    if not any(given is choice or (isinstance(given, str) and given == choice) for choice in choices):
        message = f"{name}: expected one of {', '.join(map(repr, choices))}, given {shortened(repr(given))}"
        raise UserError("not-a-choice", message)
    return given


def _text(name: str, given: Any) -> str:
    """A change as text."""
    if not isinstance(given, str):
        raise UserError("wrong-type", f"{name}: expected KEY=VALUE, as text, given {shortened(repr(given))}")
    return given


def _path(name: str, given: Any) -> str:
    """A path or an address as text."""
    if not isinstance(given, str | Path) or not str(given):
        raise UserError("wrong-type", f"{name}: expected a path, given {shortened(repr(given))}")
    return str(given)


def _folder(name: str, given: Any) -> str | None:
    """A folder that exists, if one is given."""
    if given is None:
        return None
    path = _path(name, given)
    try:
        is_there = expanded(path).is_dir()
    except ValueError as error:
        raise UserError(codes_of(error, "no-home"), f"{name}: {error}.") from error
    if not is_there:
        raise UserError("not-a-folder", f"{name}: expected a folder, given {path!r}, which is not one")
    return path
