"""The similarity of tasks in a store's trials: one comparison per trial, and their table.

Comparing contexts requires only the store; comparing answers to test images also requires the data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crwn import similarity
from crwn.benchmarks.specs import RelatesTasks
from crwn.faults import InvalidError
from crwn.methods.starts import StartsContexts
from crwn.similarity import FEWEST_TASKS, Matrix, Order, Similarity
from crwn.trial_spec import TrialSpec
from orchestrator.errors import UserError
from orchestrator.report.frames import NAMES, read_trials
from orchestrator.report.pivots import conditions, select
from orchestrator.report.printable import Table
from orchestrator.report.results import Results, tasks_of
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.store import Store

if TYPE_CHECKING:
    from crwn.contexts import ContextBank

PROBES_EACH = 28
"""Number of test images per task that all networks classify."""

ANSWERS, CONTEXTS, APART = "answers", "contexts", "contexts, started apart"
"""What tasks are compared by, in words; the last is a null model."""

CAPTION = (
    "rho: Spearman's rank correlation, over pairs of tasks, of their similarity with their distance in the benchmark, "
    "mean over seeds with the sample standard deviation; negative if close tasks are similar. Interval: 95 %, from "
    "resampling tasks; p and null: from permuting tasks (Mantel); the widest and the largest over seeds. Nearest: "
    "share of tasks whose most similar task is a neighbour, in percent."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A comparison of the tasks of one trial.

    Attributes:
        names: method, variant and scale, as the table calls them.
        benchmark: the benchmark's name.
        seed: the trial's seed.
        trial_id: the trial.
        by: `ANSWERS`, `CONTEXTS` or `APART`.
        found: the distances between tasks.
        apart: their distances in the benchmark [T, T]; None: it defines none.
        order: how the former follow the latter; None: the benchmark defines no distances.
        vectors: what each task learned [T, N]; None if compared by answers.
    """

    names: tuple[str, str, str]
    benchmark: str
    seed: int
    trial_id: str
    by: str
    found: Similarity
    apart: Matrix | None
    order: Order | None
    vectors: Matrix | None = None


def of_sweep(store: Store, manifest: Manifest, finished: Collection[str]) -> list[Comparison]:
    """The comparisons, from the store alone, of a sweep's trials whose settings make tasks start alike.

    Others are compared on request only (`compare`), so that reports on them need no torch.

    Args:
        store: the store.
        manifest: the sweep's manifest.
        finished: the trials to compare, by id.
    """
    rows = [
        {
            "trial_id": trial_id,
            "seed": seed,
            **{name: getattr(cell, name) for name in NAMES},
        }
        for cell, seed, trial_id in manifest.trials()
        if trial_id in finished and _asks_for_a_shared_start(cell, seed)
    ]
    frame = pd.DataFrame(rows, columns=["trial_id", "seed", *NAMES])
    return list(compared(store, frame, data_root=None, tell=lambda line: None, answers=False))


def _asks_for_a_shared_start(cell: ManifestCell, seed: int) -> bool:
    """Whether a cell's contexts can be compared, and its benchmark defines distances between tasks."""
    if cell.spec is None:
        return False
    try:
        trial = TrialSpec.from_values({**cell.spec.values, "seed": seed})
    except ValueError:  # of a newer crwn
        return False
    method = trial.method
    return isinstance(method, StartsContexts) and method.context_start == "shared" and _apart(trial) is not None


def compared(
    store: Store, frame: pd.DataFrame, *, data_root: str | None, tell: Callable[[str], None], answers: bool = True
) -> Iterator[Comparison]:
    """The comparisons of some finished trials.

    Args:
        store: the store.
        frame: the trials: their ids, names, benchmarks and seeds.
        data_root: where data sets are looked for first.
        tell: called with a line for each step, and for each trial that is left out.
        answers: whether to compare answers and nulls too, not only contexts that started alike.
    """
    results = Results(store)
    for number, (_, row) in enumerate(frame.iterrows(), start=1):
        name = f"{row['method']} {row['scale']} on {row['benchmark']}, seed {row['seed']}"
        try:
            bank = results.contexts(row["trial_id"])
            trial = bank.trial
            if not bank.needs_task or bank.num_tasks < FEWEST_TASKS:
                raise UserError("no-tasks", f"fewer than {FEWEST_TASKS} tasks, each with tensors of its own")
            tell(f"  {name}: {number} of {len(frame)}")
            found = list(_by_contexts(bank, nulls=answers))
            if answers:
                found.append((ANSWERS, bank.similarity(images=_probes(bank, data_root)), None))
        except (InvalidError, UserError) as error:
            tell(f"  {name}: left out: {error}")
            continue
        apart = _apart(trial)
        for by, unlike, vectors in found:
            yield Comparison(
                names=(str(row["method"]), str(row["variant"]), str(row["scale"])),
                benchmark=str(row["benchmark"]),
                seed=int(row["seed"]),
                trial_id=str(row["trial_id"]),
                by=by,
                found=unlike,
                apart=apart,
                order=None if apart is None else similarity.order(unlike.distances, apart),
                vectors=vectors,
            )


def _by_contexts(bank: ContextBank, *, nulls: bool) -> Iterator[tuple[str, Similarity, Matrix | None]]:
    """Contexts that started alike, or else, as a null model, those that did not; nothing for masks and weights."""
    try:
        vectors = bank.context_vectors()
        yield CONTEXTS, bank.similarity(by="contexts"), vectors
    except InvalidError as error:
        if nulls and "tasks-started-apart" in error.codes and not bank.trial.blueprint().keeps_weights:
            names = tuple(task.name for task in bank.tasks)
            unlike = Similarity(by="contexts", names=names, distances=similarity.by_contexts(bank.context_vectors()))
            yield APART, unlike, bank.context_vectors()


def _apart(trial: TrialSpec) -> Matrix | None:
    """The distances of a trial's tasks in its benchmark; None if it defines none, or all are equal."""
    benchmark = trial.benchmark
    apart = benchmark.distances(trial.seed) if isinstance(benchmark, RelatesTasks) else None
    if apart is None or len(apart) < FEWEST_TASKS or np.ptp(apart[np.triu_indices(len(apart), k=1)]) == 0:
        return None
    return apart


def _probes(bank: ContextBank, data_root: str | None) -> Any:
    """Test images of every task, evenly spaced in its test set."""
    import torch  # noqa: PLC0415 (reports that compare nothing do without it)

    tasks, images = tasks_of(bank.trial, data_root), []
    for task in bank.tasks:
        split = tasks.test_split(task.index)
        places = np.linspace(0, split.num_examples - 1, min(PROBES_EACH, split.num_examples)).round().astype(int)
        images.append(split.images[torch.from_numpy(places)])
    return torch.cat(images)


def compare(
    store: Store, *, where: Sequence[str] = (), data_root: str | None, tell: Callable[[str], None]
) -> list[Comparison]:
    """The comparisons of a store's finished trials.

    Args:
        store: the store.
        where: only trials with these values, `NAME=VALUE`.
        data_root: where data sets are looked for first.
        tell: called with a line for each step, and for each trial that is left out.

    Raises:
        UserError: there is no such trial, or none has tasks that can be compared.
    """
    frame = select(read_trials(store), conditions(where))
    found = list(compared(store, frame, data_root=data_root, tell=tell))
    if not found:
        raise UserError(
            "no-trial",
            f"{store.address}: expected a finished trial of at least {FEWEST_TASKS} tasks, each with tensors of its "
            "own, found none",
        )
    return found


def table_of(found: Sequence[Comparison]) -> Table:
    """The table of comparisons: one row per cell and per kind of comparison."""
    summary = pd.DataFrame([_line(one) for one in found])
    lines = []
    for keys, group in summary.groupby([*NAMES, "by"], sort=False):
        line = dict(zip([*NAMES, "by"], map(str, keys), strict=True)) | {"seeds": str(len(group))}
        if group["rho"].notna().all():
            line |= {
                "rho": _spread(group["rho"]),
                "interval": f"[{group['low'].min():.2f} {group['high'].max():.2f}]",
                "p": f"{group['p'].max():.4f}",
                "null": f"[{group['null_low'].min():.2f} {group['null_high'].max():.2f}]",
                "nearest": f"{100 * group['nearest'].mean():.1f}",
                "chance": f"{100 * group['chance'].mean():.1f}",
            }
        lines.append(line)
    table = pd.DataFrame(lines).fillna("")
    if not table["variant"].any():
        table = table.drop(columns="variant")
    notes = ["Contexts that started apart are a null model: what tasks learn stays near where they started."]
    if summary["rho"].isna().any():
        notes.append("Without rho: the benchmark does not define which tasks are closer than others.")
    notes += _across(found)
    return Table(
        name="task-similarity",
        summary=summary,
        table=table,
        caption=CAPTION,
        notes=notes,
        name_columns=[name for name in (*NAMES, "by", "seeds") if name in table.columns],
    )


def _line(one: Comparison) -> dict[str, Any]:
    method, variant, scale = one.names
    named = {"method": method, "variant": variant, "scale": scale, "benchmark": one.benchmark}
    line: dict[str, Any] = {name: named[name] for name in NAMES}
    line |= {"by": one.by, "seed": one.seed, "trial_id": one.trial_id, "tasks": len(one.found.names)}
    order = one.order
    values = (
        dict.fromkeys(ORDERED, np.nan)
        if order is None
        else dict(
            zip(
                ORDERED,
                (order.rho, *order.interval, order.p, *order.null, order.nearest, order.chance),
                strict=True,
            )
        )
    )
    return {**line, **values}


ORDERED = ("rho", "low", "high", "p", "null_low", "null_high", "nearest", "chance")
"""The table's columns that relate to the benchmark's order."""


def _across(found: Sequence[Comparison]) -> list[str]:
    """The null model of another start: pairs of trials with the same tasks and frozen weights but different starts."""
    shares = [
        (similarity.same_task_nearest(one.vectors, other.vectors), 1 / len(one.vectors))
        for one, other in itertools.permutations(found, 2)
        if one.vectors is not None
        and other.vectors is not None
        and one.vectors.shape == other.vectors.shape
        and (one.benchmark, one.seed) == (other.benchmark, other.seed)
        and {one.by, other.by} == {CONTEXTS, APART}
    ]
    if not shares:
        return []
    found_mean, chance = np.mean(shares, axis=0)
    text = (
        f"Same seed, different starts: for {100 * found_mean:.1f} % of one trial's tasks, the nearest in the other is "
        f"the same task (chance {100 * chance:.1f} %), so contexts with different starts cannot be compared."
    )
    return [text]


def _spread(values: pd.Series) -> str:
    """Mean and sample standard deviation."""
    mean = f"{values.mean():.3f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.3f}"
