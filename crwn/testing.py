"""For tests: the contract for your own method or network, and stores of synthetic trials, without any training.

`check_method` and `check_network` run the contract. Records are written by the same code as in a run, so ids, hashes,
measures and context files agree. Only the accuracies are synthetic (with the task told, they are halfway to 1), as are
predictions, spread evenly over classes, and timings.

    store = new_store(tmp_path / "store")
    local, both = (tiny_trial(modulation=name) for name in ("local", "local+global"))
    write_finished(store, local, accuracy=0.5)
    write_finished(store, both, accuracy=[0.5, 0.75])  # one per task, after the last task
    write_sweep(store, [local, both])

The only file of this package that uses the orchestrator, to fill its store; it imports it inside functions.

Shapes: T tasks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crwn import backbone
from crwn.benchmarks import PRESETS
from crwn.benchmarks.specs import OrdersTrainings
from crwn.code import Code
from crwn.data import BASE_SETS
from crwn.faults import InvalidError
from crwn.methods import METHODS, MethodEntry
from crwn.methods.protocol import NETWORKS, NetworkFactory, ScaleError
from crwn.spec import DEFAULT_UPDATES, BenchmarkSpec, MethodSpec, TrainingSpec
from crwn.trial_spec import TrialSpec

if TYPE_CHECKING:
    from crwn.events import CurvePoint, Numerics, TaskRow
    from crwn.methods.protocol import Method, Tensors
    from crwn.spec import Blueprint, ProblemShape
    from orchestrator.store.attempts import Attempt
    from orchestrator.store.finished import TrialRecord
    from orchestrator.store.rows import Sample
    from orchestrator.store.store import Store
    from orchestrator.sweeps.sweep import Cell

SMALL_SCALES = ("FC16", "1d", "dynamos-nf2")
"""Scales of small networks, in order of preference."""
CONTRACT_TASKS = 4
CONTRACT_TRAINING = TrainingSpec(learning_rate=0.01, batch_size=64, updates_per_task=30)
"""The settings of the trials with which `check_method` checks a method."""

START = 1_750_000_000.0
"""Start of the synthetic trials, in seconds since 1970: 15 June 2025, 15:06:40 UTC."""

PYTHON = "3.11.0"
"""The Python version that they record."""

MADE_UP_CODE = Code(method="0" * 16, crwn="1" * 16, results_version=1)

TEST_SECONDS = 0.125
"""The duration of each of their tests."""

Accuracy: TypeAlias = "float | Sequence[float] | NDArray[Any]"
"""Accuracies in [0, 1]: one number for all tests; [T], one per task, the same in all tests of it; or the accuracy
matrix [T, T] (`crwn.metrics`), from which the tests that a trial of the method makes are taken. For a stream, the last
row, at each update at which it is tested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How a synthetic trial was computed: everything in which equal trials may differ.

    Attributes:
        device: the kind of processor.
        device_name: the processor's name for itself.
        group_size: number of tasks learned at once; None: what the rule gives on a CPU, at most four.
        kernel: how products are computed.
        threads: number of CPU threads.
        host: the machine's name.
        pid: the process id.
        task_seconds: time to learn a task.
        curve_points: number of points of a task's training curve.
        memory: peak memory in bytes.
        held_memory: memory that the process held before the trial, in bytes.
        commit: the commit of the code.
        versions: library versions.
        code: the code that it was computed with.
        start: start of the attempt, in seconds since 1970.
        before: conditions of an earlier attempt, which made one update and from whose resume point this one continued;
            None: there was none.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    device_name: str = "AVX512"
    group_size: int | None = None
    kernel: Literal["plain", "onednn"] = "onednn"
    threads: int = 1
    host: str = "here"
    pid: int = 1
    task_seconds: float = 1.0
    curve_points: int = 1
    memory: int = 300_000_000
    held_memory: int = 0
    commit: str | None = "c" * 40
    versions: tuple[tuple[str, str], ...] = (
        ("crwn", "0.1.0"),
        ("torch", "2.11.0"),
        ("torchvision", "0.26.0"),
        ("numpy", "2.4.0"),
        ("ray", "2.55.0"),
    )
    code: Code | None = MADE_UP_CODE
    start: float = START
    before: Conditions | None = None


DEFAULT = Conditions()


def tiny_trial(
    method: str = "neuromodnet",
    *,
    seed: int = 0,
    benchmark: str | BenchmarkSpec = "r-digits",
    num_tasks: int = 2,
    scale: str | None = None,
    learning_rate: float = 0.01,
    updates_per_task: int = 5,
    **settings: Any,
) -> TrialSpec:
    """A trial on embedded data that would run in a fraction of a second.

    Args:
        method: its name in the registry.
        seed: the trial's seed.
        benchmark: a preset's name, cut to `num_tasks` tasks, or a benchmark spec, used unchanged.
        num_tasks: number of tasks of a preset, unless it is a stream.
        scale: the network's scale; by default the first of `SMALL_SCALES` that the method has.
        learning_rate: the learning rate.
        updates_per_task: updates per task; a stream's number of images determines its own.
        **settings: the method's settings.

    Raises:
        ValueError: a setting is wrong.
    """
    if isinstance(benchmark, str):
        chosen_tasks = {} if PRESETS[benchmark].problem().is_stream else {"num_tasks": num_tasks}
        benchmark = dataclasses.replace(PRESETS[benchmark], **chosen_tasks)  # type: ignore[type-var]  # a frozen spec
    length = DEFAULT_UPDATES if benchmark.problem().is_stream else updates_per_task
    chosen = METHODS[method].spec(**settings)
    return TrialSpec(
        method=chosen,
        benchmark=benchmark,
        scale=scale or _small_scale(chosen, benchmark),
        seed=seed,
        training=TrainingSpec(learning_rate=learning_rate, updates_per_task=length),
    )


def _small_scale(method: MethodSpec, benchmark: BenchmarkSpec) -> str:
    """The first of `SMALL_SCALES` that the method has."""
    for scale in SMALL_SCALES:
        with contextlib.suppress(ScaleError):
            method.blueprint(scale, benchmark.problem(), 0)
            return scale
    return SMALL_SCALES[0]


def check_method(
    method: MethodEntry | str | Path,
    *,
    scale: str | None = None,
    benchmark: str | BenchmarkSpec | None = None,
    learning_rate: float = CONTRACT_TRAINING.learning_rate,
    **settings: Any,
) -> None:
    """Check what every method promises (`crwn.contract`) by small trials on embedded data, in seconds.

    Args:
        method: an entry, or the path of a plug-in file, whose code is run and whose methods are all checked.
        scale: the network's scale; by default the first of `SMALL_SCALES` that the method has.
        benchmark: a preset's name, or a spec of at least 4 tasks; default: r-digits, or digits that arrive two
            at a time for a method that needs to be told of new classes.
        learning_rate: the learning rate.
        **settings: the method's settings.

    Raises:
        PluginError: the plug-in is at fault.
        ValueError: the method does not learn the benchmark.
        ExceptionGroup: promises are broken; it has an error for each, with what is promised.
    """
    from crwn.plugins import load_file, provider

    if isinstance(method, MethodEntry):
        kind = method.spec().kind
        with contextlib.nullcontext() if kind in METHODS else METHODS.adding({kind: method}):
            _check_kind(kind, scale, benchmark, learning_rate, settings)
        return
    plugin = load_file(Path(method))
    for kind in [name for name in METHODS if provider(METHODS, name) == plugin]:
        _check_kind(kind, scale, benchmark, learning_rate, settings)


def check_network(
    network: NetworkFactory | str | Path,
    *,
    method: str = "finetune",
    benchmark: str | BenchmarkSpec | None = None,
    learning_rate: float = CONTRACT_TRAINING.learning_rate,
) -> None:
    """Check that a method keeps its promises (`crwn.contract`) with your own network, by small trials in seconds.

    Among them: its numbers are counted, it starts from the seed alone, a test changes nothing, an interrupted trial
    computes the same bytes.

    Args:
        network: a factory, or the path of a plug-in file, whose code is run and whose networks are all checked.
        method: a method that trains a plain network.
        benchmark: as for `check_method`.
        learning_rate: the learning rate.

    Raises:
        PluginError: the plug-in is at fault.
        ValueError: the network cannot be used, or the method does not learn it.
        ExceptionGroup: promises are broken; it has an error for each, with what is promised.
    """
    from crwn.plugins import load_file, provider

    if callable(network):
        with NETWORKS.adding({"own-network": network}):
            _check_kind(method, "own-network", benchmark, learning_rate, {})
        return
    plugin = load_file(Path(network))
    for name in [name for name in NETWORKS if provider(NETWORKS, name) == plugin]:
        _check_kind(method, name, benchmark, learning_rate, {})


def _check_kind(
    kind: str,
    scale: str | None,
    benchmark: str | BenchmarkSpec | None,
    learning_rate: float,
    settings: Mapping[str, Any],
) -> None:
    from crwn.contract import CHECKS, ContractCase
    from crwn.data import Datasets

    if benchmark is None:
        spec, told = METHODS[kind].spec(**settings), PRESETS["r-digits"]
        needs = spec.blueprint(scale or _small_scale(spec, told), told.problem(), 0).needs
        benchmark = "seq-digits" if "classes" in needs else "r-digits"
    num_tasks = 5 if benchmark == "seq-digits" else CONTRACT_TASKS
    trial = tiny_trial(kind, benchmark=benchmark, num_tasks=num_tasks, scale=scale, **settings)
    training = dataclasses.replace(CONTRACT_TRAINING, learning_rate=learning_rate)
    case = ContractCase(spec=dataclasses.replace(trial, training=training), data=Datasets(BASE_SETS, roots=()))
    broken = []
    for name, check in CHECKS.items():
        try:
            check(case)
        except Exception as error:  # noqa: BLE001 (whatever a method raises breaks its promise)
            error.add_note(f"{kind} breaks the promise {name}: {(check.__doc__ or '').strip()}")
            broken.append(error)
    if broken:
        raise ExceptionGroup(f"{kind} breaks {len(broken)} of {len(CHECKS)} promises of a method", broken)


def new_store(folder: Path) -> Store:
    """A new, empty store with fast writes: without fsync, a crash of the machine may lose its content.

    Args:
        folder: a folder that does not exist or is empty.
    """
    from orchestrator.store.folder import LocalFiles
    from orchestrator.store.store import Store

    store = Store(LocalFiles(folder, is_synchronised=False))
    store.create()
    return store


def write_finished(
    store: Store, spec: TrialSpec, accuracy: Accuracy = 0.5, conditions: Conditions = DEFAULT
) -> TrialRecord:
    """Write a finished trial to a store.

    Args:
        store: the store.
        spec: the trial, of any size, since nothing is trained.
        accuracy: the accuracies of its tests.
        conditions: how it was computed.

    Returns:
        The record written.

    Raises:
        ValueError: see `finished_record`.
    """
    record = finished_record(spec, accuracy, conditions)
    store.records.write(spec.trial_id, record)
    return record


def write_unfinished(
    store: Store,
    spec: TrialSpec,
    accuracy: Accuracy = 0.5,
    *,
    tasks_learned: int = 1,
    error: Exception | None = None,
    conditions: Conditions = DEFAULT,
) -> None:
    """Write an unfinished trial to a store: its attempt, its resume point, from which it can resume, its rows so far.

    Args:
        store: the store.
        spec: the trial.
        accuracy: the accuracies of its tests; only tests made by then are written.
        tasks_learned: number of tasks learned; 0 for a method that learns all tasks jointly.
        error: the error that ended the attempt; None if it is running or was interrupted.
        conditions: how it was computed.

    Raises:
        ValueError: see `finished_record`; or an unfinished trial of the method never has this many tasks learned.
    """
    from orchestrator.execution.attempt import task_rows

    rows = [row for row in _rows(spec, accuracy, conditions) if row.tasks_learned <= tasks_learned]
    num_tasks = spec.benchmark.problem().num_tasks
    if not 0 <= tasks_learned < num_tasks or len({row.task for row in rows}) != tasks_learned:
        raise InvalidError(
            "all-learned", f"tasks_learned: expected fewer than are learned at the end, given {tasks_learned}"
        )
    record = finished_record(spec, accuracy, conditions)
    samples = record.system[: len(rows)]
    point = _resume_point(spec, rows, conditions)
    store.unfinished.write_attempts(
        spec.trial_id, [_attempt(spec, conditions, tasks_learned=tasks_learned, error=error)]
    )
    store.unfinished.write_resume(spec.trial_id, point, task_rows(spec, rows), samples)


def write_sweep(
    store: Store, trials: Iterable[TrialSpec | Cell], *, name: str = "small", reference: str | None = None
) -> None:
    """Write a sweep's manifest to a store.

    Args:
        store: the store.
        trials: what the sweep requests: cells, which keep their names, and trials; trials that differ only in their
            seed share one cell, named as in records.
        name: the sweep's name.
        reference: the label of the method with whose params/task the others are compared.
    """
    from orchestrator.execution.attempt import recorded_benchmark
    from orchestrator.sweeps.sweep import Cell, Resources, Sweep

    cells: dict[Any, Cell] = {}
    for trial in trials:
        if isinstance(trial, Cell):
            cells[len(cells)] = trial
            continue
        kind = dataclasses.replace(trial, seed=0)
        own = cells.get(kind) or Cell(
            method=trial.method.kind,
            variant=trial.variant,
            scale=trial.scale,
            benchmark=recorded_benchmark(trial.benchmark),
            trials=(),
        )
        cells[kind] = dataclasses.replace(own, trials=(*own.trials, trial))
    sweep = Sweep(name=name, store=None, cells=tuple(cells.values()), resources=Resources(), reference=reference)
    store.write_manifest(sweep.manifest())


def finished_record(spec: TrialSpec, accuracy: Accuracy = 0.5, conditions: Conditions = DEFAULT) -> TrialRecord:
    """The record that a finished trial leaves.

    It has one system sample at the start and one at the end. Its contexts are the initial ones, of seed 0.

    Args:
        spec: the trial, of any size.
        accuracy: the accuracies of its tests.
        conditions: how it was computed.

    Raises:
        ValueError: an accuracy is outside [0, 1], the matrix has the wrong shape, or a task's accuracy changes although
            the method's tasks do not interfere.
    """
    from crwn import contexts
    from crwn.trial import Finished
    from orchestrator.execution import attempt

    rows, blueprint = _rows(spec, accuracy, conditions), spec.blueprint()
    drawn = _fingerprint(blueprint.backbone)
    kept = () if blueprint.keeps_weights else _kept(_at_seed_0(spec))
    finished = Finished(
        rows=rows,
        contexts=contexts.dump(kept, {}, spec, drawn),
        fingerprint=drawn,
        numerics=_numerics(spec, conditions),
        peak_memory=conditions.memory,
        device_name=conditions.device_name,
        held_memory=conditions.held_memory,
    )
    tried = _attempts(spec, conditions, tasks_learned=rows[-1].tasks_learned)
    samples = [_sample(spec, conditions, time) for time in (conditions.start, rows[-1].tested)]
    record = attempt.record_of(spec, finished, tried, conditions.commit, samples)
    provenance = dataclasses.replace(
        record.trial.provenance,
        finished=_iso(rows[-1].tested),
        host=conditions.host,
        visible_gpus="0" if conditions.device == "cuda" else None,
        python=PYTHON,
        versions=dict(conditions.versions),
        code=conditions.code,
    )
    return dataclasses.replace(record, trial=dataclasses.replace(record.trial, provenance=provenance))


# The parts


def _matrix(spec: TrialSpec, accuracy: Accuracy) -> NDArray[Any]:
    """The accuracy matrix [T, T]."""
    problem, given = spec.benchmark.problem(), np.asarray(accuracy, dtype=float)
    num_tasks = problem.num_tasks
    if given.shape not in ((), (num_tasks,), (num_tasks, num_tasks)):
        shapes = f"one number, [{num_tasks}] or [{num_tasks}, {num_tasks}]"
        raise InvalidError("wrong-shape", f"accuracy: expected {shapes}, given {list(given.shape)}")
    matrix = np.broadcast_to(given, (num_tasks, num_tasks))
    learned, tested = (np.tril_indices(num_tasks, ahead) for ahead in (0, int(problem.tests_ahead)))
    if not ((matrix[tested] >= 0) & (matrix[tested] <= 1)).all():
        raise InvalidError("not-an-accuracy", "accuracy: expected numbers in [0, 1]")
    if spec.blueprint().is_independent and (matrix[learned] != np.diag(matrix)[learned[1]]).any():
        raise InvalidError(
            "forgets-nothing", "accuracy: expected a task's to stay what it was, since no other task changes it"
        )
    return matrix


def _rows(spec: TrialSpec, accuracy: Accuracy, conditions: Conditions) -> tuple[TaskRow, ...]:
    """The tests that a trial of this method makes, in order."""
    from crwn.events import TaskRow

    matrix, time = _matrix(spec, accuracy), conditions.start
    problem, blueprint, num_tests = spec.benchmark.problem(), spec.blueprint(), _num_tests(spec)
    rows = []

    def test(task: int, tasks_learned: int, *, is_learned: bool, update: int | None = None) -> None:
        nonlocal time
        curve: tuple[CurvePoint, ...] = ()
        if is_learned:
            if (blueprint.is_continual and not problem.is_stream) or task == 0:
                curve = _curve(spec, conditions, time)
            time += conditions.task_seconds
        time += TEST_SECONDS
        reached = float(matrix[tasks_learned - 1 if update is None else -1, task])
        if problem.tests_ahead and tasks_learned == 0:
            reached = 1 / problem.num_classes
        rows.append(
            TaskRow(
                task=task,
                tasks_learned=tasks_learned,
                accuracy=reached,
                loss=1.5,
                num_test=num_tests[task],
                train_seconds=conditions.task_seconds if is_learned else None,
                eval_seconds=TEST_SECONDS,
                tested=time,
                curve=curve,
                update=update,
                answered=None if problem.scenario == "task" else _spread(num_tests[task], problem.num_classes),
                accuracy_told=(1 + reached) / 2 if problem.scenario == "class" else None,
            )
        )

    if problem.tests_by_update:
        for task, num_segments, is_learned, update in _tests_by_update(spec):
            test(task, num_segments, is_learned=is_learned, update=update)
        return tuple(rows)
    for task, tasks_learned in _tests_in_turn(problem, blueprint):
        test(task, tasks_learned, is_learned=tasks_learned == task + 1 or not blueprint.is_continual)
    return tuple(rows)


def _tests_by_update(spec: TrialSpec) -> Iterator[tuple[int, int, bool, int]]:
    """Tests by update, in order: the task, the segments learned by then, whether it was just learned, the update."""
    problem, end = spec.benchmark.problem(), spec.num_updates()
    if not isinstance(spec.benchmark, OrdersTrainings) or not spec.blueprint().is_continual:
        for update, num_segments in _stream_tests(spec):
            yield from ((task, num_segments, update == end, update) for task in range(problem.num_tasks))
        return
    trainings = spec.benchmark.trainings(spec.seed)
    for number, taught in enumerate(trainings, start=1):
        for task in (taught, *sorted(set(trainings[:number]) - {taught})):
            yield task, number, task == taught, end * number // len(trainings)


def _tests_in_turn(problem: ProblemShape, blueprint: Blueprint) -> Iterator[tuple[int, int]]:
    """The tests of a trial that is not a stream, in order: the task, and the number of tasks learned by then."""
    num_tasks = problem.num_tasks
    if not blueprint.is_continual:
        yield from ((task, num_tasks) for task in range(num_tasks))
        return
    if problem.tests_ahead:
        yield from ((task, 0) for task in range(num_tasks))
    for learned in range(1, num_tasks + 1):
        yield learned - 1, learned
        if not blueprint.is_independent or learned == num_tasks:
            yield from ((task, learned) for task in range(learned - 1))
        if problem.tests_ahead and learned < num_tasks:
            yield learned, learned


def _num_tests(spec: TrialSpec) -> list[int]:
    """The number of test images per task; approximate if training images are held out."""
    problem, base = spec.benchmark.problem(), BASE_SETS[spec.benchmark.base]
    if own := getattr(spec.benchmark, "test_images", 0):
        return [int(own)] * problem.num_tasks
    num_tests = spec.benchmark.validation or base.num_test
    classes = problem.task_classes or (tuple((task,) for task in range(problem.num_tasks)) if problem.is_stream else ())
    if classes and not spec.benchmark.validation:
        return [sum(base.test_counts[label] for label in own) for own in classes]
    is_shared_out = classes or problem.scenario == "class" or not problem.labels_are_shared
    return [num_tests // problem.num_tasks if is_shared_out else num_tests] * problem.num_tasks


def _spread(count: int, num_classes: int) -> tuple[int, ...]:
    """`count` predictions, spread over the classes as evenly as possible."""
    return tuple(np.diff(np.arange(num_classes + 1) * count // num_classes).tolist())


def _stream_tests(spec: TrialSpec) -> list[tuple[int, int]]:
    """The updates after which a stream is tested, each with the number of segments seen completely."""
    problem, end = spec.benchmark.problem(), spec.num_updates()
    every = getattr(spec.benchmark, "test_every", 0) if spec.blueprint().is_continual else 0
    ends = np.cumsum(problem.segment_sizes)
    updates = [*(range(every, end, every) if every else ()), end]
    seen = [min(update * spec.training.batch_size, problem.num_train) for update in updates]
    return [(update, int((ends <= number).sum())) for update, number in zip(updates, seen, strict=True)]


def _curve(spec: TrialSpec, conditions: Conditions, start: float) -> tuple[CurvePoint, ...]:
    """The curve of a task that begins at `start`, with constant accuracy."""
    from crwn.events import CurvePoint

    problem = spec.benchmark.problem()
    updates = spec.num_updates() // (1 if problem.is_stream else problem.num_segments)
    shares = [(number + 1) / conditions.curve_points for number in range(conditions.curve_points)]
    return tuple(
        CurvePoint(
            step=max(1, round(share * updates)),
            loss=2.0,
            accuracy=0.25,
            time=start + share * conditions.task_seconds,
        )
        for share in shares
    )


def _numerics(spec: TrialSpec, conditions: Conditions) -> Numerics:
    from crwn.events import Numerics
    from crwn.trial import CPU_GROUP

    num_tasks = spec.benchmark.problem().num_tasks
    by_rule = {"one": 1, "any": min(CPU_GROUP, num_tasks), "all": num_tasks}[spec.blueprint().grouping]
    return Numerics(
        device=conditions.device,
        group_size=conditions.group_size or by_rule,
        kernel=conditions.kernel,
        threads=conditions.threads,
    )


@functools.lru_cache(maxsize=10_000)
def _fingerprint(spec: backbone.BackboneSpec) -> str:
    return backbone.draw(spec).fingerprint


def _at_seed_0(spec: TrialSpec) -> TrialSpec:
    """The trial reduced to what the shapes of kept tensors depend on, so that many trials share cached tensors."""
    return dataclasses.replace(spec, seed=0, training=TrainingSpec(learning_rate=0.01))


def _method(spec: TrialSpec) -> Method:
    import torch

    from crwn import learner

    return learner.build(spec, backbone.draw(spec.blueprint().backbone), torch.device("cpu"), "plain")


@functools.lru_cache(maxsize=100)
def _kept(spec: TrialSpec) -> tuple[Tensors, ...]:
    """The tensors kept for each task, with their initial values."""
    method = _method(spec)
    tasks = range(spec.benchmark.problem().num_tasks)
    return tuple(
        {name: tensor.detach() for name, tensor in method.pack(method.start([task])).items()} for task in tasks
    )


def _resume_point(spec: TrialSpec, rows: Sequence[TaskRow], conditions: Conditions) -> bytes:
    """A resume point between two groups, as the engine writes it."""
    from crwn import resume

    method, learned = _method(_at_seed_0(spec)), len({row.task for row in rows})
    position = resume.Position(
        learned=learned,
        rows=rows,
        kept=_kept(_at_seed_0(spec))[:learned],
        shared=method.start_shared() if spec.blueprint().moves_shared != "never" else {},
        memory=method.start_memory(),
        groups=[],
    )
    identity = (spec.trial_id, _fingerprint(spec.blueprint().backbone))
    return resume.dump(position, identity=identity, numerics=_numerics(spec, conditions))


def _attempts(spec: TrialSpec, conditions: Conditions, *, tasks_learned: int) -> list[Attempt]:
    """The attempt that learned `tasks_learned` tasks, after the earlier one, if any."""
    from orchestrator.store.attempts import Position

    last = _attempt(spec, conditions, tasks_learned=tasks_learned)
    if conditions.before is None:
        return [last]
    first, place = _attempt(spec, conditions.before, tasks_learned=0), Position(step=1)
    return [dataclasses.replace(first, reached=place), dataclasses.replace(last, began_at=place)]


def _attempt(spec: TrialSpec, conditions: Conditions, *, tasks_learned: int, error: Exception | None = None) -> Attempt:
    """An attempt that started the trial from the beginning."""
    from orchestrator.execution.attempt import new_attempt
    from orchestrator.store.attempts import AttemptError, Position

    made = new_attempt(spec, 1.0 if conditions.device == "cuda" else None)
    ended, name = None, type(error).__name__
    if error is not None:
        ended = AttemptError(type=name, message=str(error), traceback=f"Traceback ...\n{name}: {error}\n")
    return dataclasses.replace(
        made,
        started=_iso(conditions.start),
        host=conditions.host,
        pid=conditions.pid,
        versions={**dict(conditions.versions), "python": PYTHON},
        code=conditions.code,
        began_at=Position(),
        reached=Position(tasks_learned=tasks_learned),
        error=ended,
    )


def _sample(spec: TrialSpec, conditions: Conditions, time: float) -> Sample:
    from orchestrator.store.rows import Sample

    on_gpu = conditions.device == "cuda"
    return Sample(
        trial_id=spec.trial_id,
        time=time,
        process_cpu_percent=98.5,
        process_memory_bytes=3e8,
        machine_cpu_percent=51.0,
        machine_memory_bytes=4e9,
        gpu_percent=40.0 if on_gpu else None,
        gpu_memory_bytes=2e9 if on_gpu else None,
        gpu_power_watts=250.5 if on_gpu else None,
    )


def _iso(time: float) -> str:
    return datetime.datetime.fromtimestamp(math.floor(time), datetime.UTC).isoformat(timespec="seconds")
