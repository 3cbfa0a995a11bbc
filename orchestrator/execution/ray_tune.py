"""Trials as Ray actors, placed by Ray Tune. The only file that imports Ray.

Tune decides which trial runs where and starts one again whose process died; it keeps nothing. Results and resume
points go to the store, and a new run builds a new Tuner over the trials that the store lacks: Tune's own restoring
runs finished trials again after its driver was killed.

Frozen weights are put into the object store once for each distinct backbone and read by the trials without a copy.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RaySystemError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from crwn.backbone import Arrays, Backbone, BackboneSpec
from crwn.data import BASE_SETS, Datasets
from crwn.paths import expanded
from crwn.spec import TrialSpec
from orchestrator import scratch
from orchestrator.errors import UnavailableError, UserError
from orchestrator.execution.backbones import SharedBackbone, SharedBackbones
from orchestrator.execution.home import Ask, Home, SentFiles
from orchestrator.execution.packing import measured, resources_of
from orchestrator.execution.protocol import Capacity, Job, NodeResources, TrialUpdate
from orchestrator.execution.reaching_ray import check_cluster, check_start, cluster_address, ray_folder
from orchestrator.execution.resources import check_resources, nodes_to_come, this_machine
from orchestrator.execution.survey import NodeReport, Questions, gpu_memory, look
from orchestrator.store.attempts import Attempt, AttemptError
from orchestrator.store.files import Mark
from orchestrator.store.store import Store, sees
from orchestrator.sweeps.sweep import Resources

WAVE = 200
"""Trials a Tuner: the driver's memory grows with the trials of one."""

MAX_PROCESS_DEATHS = 2
"""How often a trial whose process dies is started again in the same run."""

STEP_SECONDS = 1.0
"""How long an actor computes between two reports to the driver."""

SURVEY_SECONDS = 600.0
"""How long a machine may take to answer; the first task there starts Python, and may decode photographs."""

PATIENCE_SECONDS, PAUSE_SECONDS = 60.0, 1.0
"""How long a head may not answer, and the pause between two questions."""

AUTOSCALER_FILE = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves on the head what it may start."""

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # trials stay where the driver is
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they fill the disk with what the store has
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own makes an interrupted run look like a finished one
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # errors are kept in the store and shown by the command line
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""Must be set before Ray starts; what the user has set himself stays."""


class RayTuneExecutor:
    """Runs trials side by side on the cluster at $RAY_ADDRESS, or on this machine where none is named."""

    def check(self, resources: Resources) -> None:
        """See that Ray can be used and some node has what a trial asks for; connects to a cluster, starts no Ray here.

        Raises:
            UnavailableError: the cluster does not answer, or something keeps a local Ray from starting.
            UserError: no node has it.
        """
        if ray.is_initialized() or cluster_address():
            _connect()
            check_resources(resources, _nodes())
        else:
            check_start()
            check_resources(resources, [this_machine(count_gpus=bool(resources.gpus))])

    def capacity(self) -> Capacity:
        """What the cluster's machines have; this one's where there is no cluster."""
        if not (ray.is_initialized() or cluster_address()):
            memory = gpu_memory()
            cpus = len(os.sched_getaffinity(0))
            return Capacity(nodes=(NodeResources(cpus=cpus, gpus=len(memory)),), gpu_memory=min(memory, default=None))
        _connect()
        return _capacity()

    def survey(self, questions: Questions) -> Mapping[str, NodeReport | str]:
        """The answers of a cluster's machines that have CPUs or GPUs for trials; of this one where there is none."""
        if not (ray.is_initialized() or cluster_address()):
            return {"this machine": look(questions)}
        _connect()
        asked = {
            node["NodeManagerAddress"]: ray.remote(look)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(questions)
            for node in _alive()
            if node["Resources"].get("CPU") or node["Resources"].get("GPU")
        }
        return {address: _answer(reference) for address, reference in asked.items()}

    def run(self, job: Job, on_update: Callable[[TrialUpdate], None]) -> None:
        """Run the trials in waves; see `Executor.run`."""
        started_here = _connect()
        try:
            gpus = _gpus(job)
            shared, home = SharedBackbones(ray.put), _home(job.store)
            for wave in _waves(job.trials):
                shared.keep_only(spec.blueprint().backbone for spec in wave)
                _run_wave(job, wave, on_update, gpus=gpus, shared=shared, home=home)
            # Once more, with a whole GPU each: others on the same GPU may have had the memory.
            alone = {spec: 1.0 for spec in job.trials if 0 < gpus[spec] < 1 and ran_out_of_memory(job.store, spec)}
            for wave in _waves(tuple(alone)):
                shared.keep_only(spec.blueprint().backbone for spec in wave)
                _run_wave(job, wave, on_update, gpus=alone, shared=shared, home=home)
        finally:
            if started_here:
                ray.shutdown()


def _connect() -> bool:
    """Connect to a cluster or start a local one; whether this call did.

    Raises:
        UnavailableError: $RAY_ADDRESS names a cluster that cannot be reached, or Ray does not start here.
    """
    if ray.is_initialized():
        return False
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = cluster_address()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        check_cluster(address)
        what_to_do = (
            "Start one with `ray start --head`, or unset the variable to use this machine. A cluster with token "
            "authentication (Ray's default) wants RAY_AUTH_MODE=token here, and its token in ~/.ray/auth_token."
        )
        with _own_sigterm(), _explained(f"$RAY_ADDRESS: connecting to the Ray cluster at {address} failed", what_to_do):
            ray.init(address=address, **quiet)
    else:
        check_start()
        what_to_do = (
            f"Its logs are in {ray_folder().logs}; it may lack memory, processes (ulimit -u) or open files "
            "(ulimit -n). Or run the trials without it: --executor inline."
        )
        # "local" never looks for an earlier cluster, whose stale address would make it hang.
        with _own_sigterm(), _explained("Ray could not be started on this machine", what_to_do):
            ray.init(address="local", include_dashboard=False, num_cpus=len(os.sched_getaffinity(0)), **quiet)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    return True


@contextlib.contextmanager
def _explained(what_failed: str, what_to_do: str) -> Iterator[None]:
    """Whatever Ray raises while it starts or connects, in one line.

    Raises:
        UnavailableError: instead of it.
    """
    try:
        yield
    except Exception as error:
        raise UnavailableError(f"{what_failed}: {_reason(error)}. {what_to_do}") from error


def _reason(error: BaseException) -> str:
    """What went wrong, in a line: what is said of it, and of what it came from."""
    said = [line for cause in _causes(error) if (line := next(iter(str(cause).strip().splitlines()), ""))]
    return ": ".join(dict.fromkeys(line.rstrip(".") for line in said)) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does here: Ray's own handler ends a driver on the spot, MLflow's runs still running."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _alive() -> list[dict[str, Any]]:
    """The machines that are up. Ray gives a busy head five seconds to answer; here it has a minute.

    Raises:
        UserError: it did not answer.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        except RaySystemError as error:
            if time.monotonic() > until:
                raise UserError(f"expected the cluster's head to answer: {error}. Is it up? `ray status`") from error
            time.sleep(PAUSE_SECONDS)
        else:
            return [node for node in nodes if node["Alive"]]


def _nodes() -> list[NodeResources]:
    """The machines of the cluster, and those that its autoscaler may add."""
    running = [
        NodeResources(cpus=node["Resources"].get("CPU", 0.0), gpus=node["Resources"].get("GPU", 0.0))
        for node in _alive()
    ]
    # Where none is named, Ray was started here for this run, and starts no machines.
    if not cluster_address():
        return running
    with contextlib.suppress(ValueError):  # a user without a home has started no cluster
        running.extend(nodes_to_come(expanded(AUTOSCALER_FILE)))
    return running


def _answer(reference: Any) -> NodeReport | str:
    """What a machine answered, or why it did not."""
    try:
        report: NodeReport = ray.get(reference, timeout=SURVEY_SECONDS)
    except (RayError, ImportError) as error:  # it left, it has no crwn, or it is too busy
        return str(error).strip().splitlines()[-1]
    return report


def _gpus(job: Job) -> dict[TrialSpec, float]:
    """GPUs for each trial: as asked for, or, where nobody said, a share that holds what the trial will take."""
    capacity, known = _capacity(), measured(job.store, job.known_trials)
    return {
        spec: resources_of(spec, job.resources, capacity, known.get(spec.trial_id)).gpus or 0.0 for spec in job.trials
    }


def _capacity() -> Capacity:
    nodes = tuple(_nodes())
    return Capacity(nodes=nodes, gpu_memory=_smallest_gpu() if any(node.gpus >= 1 for node in nodes) else None)


def _smallest_gpu() -> int | None:
    """Bytes of the smallest GPU of the cluster's machines; None where torch can use none of some machine's.

    None too where no machine with one runs yet, though an autoscaler may start some.
    """
    look_there = ray.remote(gpu_memory)
    asked = [
        look_there.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in _alive()
        if node["Resources"].get("GPU")
    ]
    sizes: list[list[int]] = ray.get(asked)
    return min(min(memories) for memories in sizes) if sizes and all(sizes) else None


def ran_out_of_memory(store: Store, spec: TrialSpec) -> bool:
    """Whether the last attempt at a trial ended so, and not for another reason."""
    attempts = store.unfinished.attempts(spec.trial_id)
    error = attempts[-1].error if attempts else None
    return error is not None and error.type == "OutOfMemoryError"


def _waves(trials: Sequence[TrialSpec]) -> Iterator[Sequence[TrialSpec]]:
    for start in range(0, len(trials), WAVE):
        yield trials[start : start + WAVE]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Home:
    """How a machine that does not see the store's folder reaches it.

    Attributes:
        actor: a `Home` on the driver's machine.
        word: what the folder holds, for machines to tell whether they see it.
        host: the driver's machine.
    """

    actor: Any
    word: str
    host: str


def _home(store: Store) -> _Home | None:
    """For a store on a path in a cluster, of which any machine, also one that comes later, may not see the path."""
    word = store.word if cluster_address() else None
    if word is None:
        return None
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kept = ray.remote(Home).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
    return _Home(actor=kept.remote(store.address, store.mark), word=word, host=socket.gethostname())


def _ask(home: _Home) -> Ask:
    def ask(what: str, *arguments: Any) -> Any:
        try:
            return ray.get(home.actor.answer.remote(what, *arguments))
        except RayTaskError as error:
            raise error.cause from None  # as it was raised there
        except RayError as error:
            raise OSError(f"the store on {home.host} cannot be reached: {error}") from error

    return ask


@dataclass(frozen=True, slots=True, kw_only=True)
class _Assignment:
    """What an actor needs to run a trial. Travels by pickle, from the driver to its own workers only."""

    spec: TrialSpec
    backbone: SharedBackbone
    store: str
    mark: Mark | None
    home: _Home | None
    data_roots: tuple[Path, ...]
    gpus: float
    cpus: float
    commit: str | None
    max_group_size: int | None
    keep_weights: bool


def _run_wave(
    job: Job,
    wave: Sequence[TrialSpec],
    on_update: Callable[[TrialUpdate], None],
    *,
    gpus: Mapping[TrialSpec, float],
    shared: SharedBackbones,
    home: _Home | None,
) -> None:
    cpus = job.resources.cpus
    assignments = {
        spec.trial_id: _Assignment(
            spec=spec,
            backbone=shared.get(spec.blueprint().backbone),
            store=job.store.address,
            mark=job.store.mark,
            home=home,
            data_roots=job.data_roots,
            gpus=gpus[spec],
            cpus=cpus,
            commit=job.commit,
            max_group_size=job.group_sizes.get(spec.trial_id),
            keep_weights=job.keep_weights,
        )
        for spec in wave
    }
    reporter = _Reporter(job.store, on_update)
    with scratch.folder("crwn-tune-") as folder:  # Tune insists on one; nothing of value goes there
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(TrialActor, assignments=assignments),
                lambda config: tune.PlacementGroupFactory([{"CPU": cpus, "GPU": assignments[config["trial_id"]].gpus}]),
            ),
            param_space={"trial_id": tune.grid_search(list(assignments))},
            tune_config=tune.TuneConfig(
                # GPU memory stays with a process: a new one for each trial there. CPU processes are used again.
                reuse_actors=not any(assignment.gpus for assignment in assignments.values()),
                trial_name_creator=lambda trial: trial.config["trial_id"],
                trial_dirname_creator=lambda trial: trial.config["trial_id"],
            ),
            run_config=tune.RunConfig(
                name="wave",
                storage_path=str(folder),
                verbose=0,
                callbacks=[reporter],
                failure_config=tune.FailureConfig(max_failures=MAX_PROCESS_DEATHS),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        )
        try:
            tuner.fit()
        except Exception:
            if reporter.error is not None:
                raise reporter.error from None  # Tune makes a text of it
            raise


class TrialActor(tune.Trainable):
    """One process that runs trials, one after another where actors are used again."""

    def setup(  # type: ignore[override]  # `tune.with_parameters` adds the argument
        self, config: dict[str, Any], assignments: Mapping[str, _Assignment]
    ) -> None:
        """Take the first assignment of the wave's."""
        self._assignments = assignments
        self._datasets: dict[tuple[Path, ...], Datasets] = {}
        self._assign(assignments[config["trial_id"]])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next assignment."""
        self._assign(self._assignments[new_config["trial_id"]])
        return True

    def step(self) -> dict[str, Any]:
        """Compute for about a second and report."""
        until = time.monotonic() + STEP_SECONDS
        for update in self._updates:
            if update.state != "running" or update.note or time.monotonic() >= until:
                break
        return {"update": update, "done": update.state != "running"}

    def cleanup(self) -> None:
        """Let go of the trial that was running, its resume point stays."""
        self._updates.close()

    def _assign(self, assignment: _Assignment) -> None:
        roots = assignment.data_roots
        self._updates = _computed(assignment, self._datasets.setdefault(roots, Datasets(BASE_SETS, roots)))


def _computed(assignment: _Assignment, data: Datasets) -> Generator[TrialUpdate, None, None]:
    """Updates of a trial; see `attempt`."""
    from orchestrator.execution.attempt import attempt  # noqa: PLC0415 (torch, which the driver does without)

    home, store = assignment.home, assignment.store
    files: str | SentFiles = store
    mark = assignment.mark
    if home is not None and not sees(store, home.word):
        files, mark = SentFiles(store, _ask(home)), None  # the driver's machine has it
        note = (
            f"{socket.gethostname()} does not see the folder {store} of {home.host}: what its trials compute, resume "
            "points too, goes there through Ray, and is lost if that disk is. A folder that all machines share, or "
            "object storage (--out s3://bucket/prefix), spares the way"
        )
        yield TrialUpdate(trial_id=assignment.spec.trial_id, state="running", note=note)
    yield from attempt(
        assignment.spec,
        store=Store(files, mark),
        data=data,
        backbones=source(assignment.backbone),
        gpus=assignment.gpus,
        cpus=assignment.cpus,
        commit=assignment.commit,
        max_group_size=assignment.max_group_size,
        keep_weights=assignment.keep_weights,
    )


def source(shared: SharedBackbone) -> Callable[[BackboneSpec], Backbone]:
    """Where a trial in an actor reads its backbone from: the object store, without a copy."""

    def read(_: BackboneSpec) -> Backbone:
        arrays: Arrays = ray.get(shared.reference)  # read-only views of the object store's memory
        return Backbone(arrays=arrays, fingerprint=shared.fingerprint)

    return read


class _Reporter(tune.Callback):
    """Hands what the actors report to the driver, and keeps the death of a process as the trial's error.

    Attributes:
        error: what the driver raised when it was told, which ends the wave.
    """

    def __init__(self, store: Store, on_update: Callable[[TrialUpdate], None]) -> None:
        self._store = store
        self._on_update = on_update
        self.error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks into a file that we never read, and a display does not pickle."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **info: Any
    ) -> None:
        self._tell(result["update"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial_id = trial.config["trial_id"]
        message = (
            f"its process failed or died {MAX_PROCESS_DEATHS + 1} times, such as killed or out of memory; it goes on "
            "from its last resume point at the next run"
        )
        with contextlib.suppress(OSError):  # a full disk must not stop the other trials
            *earlier, last = self._store.unfinished.attempts(trial_id) or (Attempt(),)
            error = AttemptError(type="ProcessFailed", message=message, traceback=_error_text(trial))
            self._store.unfinished.write_attempts(trial_id, [*earlier, replace(last, error=error)])
        self._tell(TrialUpdate(trial_id=trial_id, state="failed", error=message))

    def _tell(self, update: TrialUpdate) -> None:
        try:
            self._on_update(update)
        except Exception as error:
            self.error = error
            raise


def _error_text(trial: Any) -> str:
    with contextlib.suppress(OSError, TypeError):
        return Path(trial.error_file).read_text()
    return ""
