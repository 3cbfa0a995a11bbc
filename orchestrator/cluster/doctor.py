"""`crwn doctor`: checks whether a sweep can run here, before the first GPU hour is spent."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from crwn.benchmarks.features import weights_files
from crwn.data import BASE_SETS
from crwn.data.base import data_roots
from crwn.trial_spec import TrialSpec
from orchestrator.display import hide_password, print_line
from orchestrator.errors import UnavailableError, UserError
from orchestrator.execution.executors import EXECUTORS
from orchestrator.execution.protocol import Survey
from orchestrator.execution.reaching_ray import cluster_address
from orchestrator.execution.running import Options, check_secrets, chosen_executor, chosen_resources, trials_left
from orchestrator.execution.survey import ABSENT, NodeReport, Questions, look
from orchestrator.store.address import open_files
from orchestrator.store.files import TEMPORARY
from orchestrator.store.store import Store
from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking import following
from orchestrator.tracking.address import tracking_uri

MEBIBYTE, GIBIBYTE = 2**20, 2**30
ROWS_BYTES = 2**17
"""Of a trial's Parquet files, about."""
MIN_FREE_DISK = 2**30
"""Free bytes below which logs and caches alone may fill a disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: what was checked, in one word.
        found: what was found and, for a fault, what to do.
        is_fault: whether the sweep would fail or be lost because of it.
    """

    subject: str
    found: str
    is_fault: bool = False


def show(sweep: Sweep, store: Store, options: Options, console: Console) -> bool:
    """Print one line for each finding.

    Returns:
        Whether there are no faults.

    Raises:
        UserError: the options are wrong, or the store cannot be created.
    """
    findings = []
    for finding in examine(sweep, store, options):
        findings.append(finding)
        print_line(console, f"{'FAULT' if finding.is_fault else 'ok   '} {finding.subject:<10} {finding.found}")
    num_faults = sum(finding.is_fault for finding in findings)
    print_line(console, f"{sweep.name}: {'no problems found' if not num_faults else f'faults: {num_faults}'}")
    return not num_faults


def examine(sweep: Sweep, store: Store, options: Options) -> Iterator[Finding]:
    """Check resources, machines, versions, store, data, disks and MLflow; start no trial and download nothing.

    Raises:
        UserError: the options are wrong, or the store cannot be created.
    """
    left = trials_left(sweep, store)
    yield Finding(subject="sweep", found=f"{len(sweep.trials)} trials, {len(sweep.trials) - len(left)} of them done")
    resources = chosen_resources(sweep, options)
    name = chosen_executor(options, len(left))
    check_secrets(options, name)
    executor = EXECUTORS[name]()
    ask: Survey = executor.survey
    try:
        executor.check(resources)
    except UnavailableError as error:
        yield Finding(subject="Ray", found=str(error), is_fault=True)
        ask = _nobody if cluster_address() else _this_machine
    except UserError as error:
        yield Finding(subject="resources", found=str(error).removeprefix("resources: "), is_fault=True)
    else:
        gpus = "" if resources.gpus is None else f" and {resources.gpus:g} GPUs"
        yield Finding(subject="resources", found=f"some machine has {resources.cpus:g} CPUs{gpus} for a trial")
    store.create()
    bases = tuple(sorted({trial.benchmark.base for trial in left}))
    wanted = Questions(
        plugins=sweep.plugins,
        store=store.address,
        probe=f"{uuid.uuid4().hex}{TEMPORARY}",
        bases=bases,
        data_roots=data_roots(options.data_root),
        gpus=bool(resources.gpus),
        weights=weights_files(trial.benchmark for trial in left),
    )
    survey = _surveyed(ask, wanted)
    here = survey.here
    if ask is not _nobody:
        yield from _machines(survey)
    reports = {f"{report.host} ({node})": report for node, report in survey.reports.items()}
    yield from _versions(here, reports)
    yield from _store(store, left, reports, survey.seen)
    yield from _data(bases, reports)
    if resources.gpus:
        yield from _gpus(reports)
    yield from _disk(store, left, here, keep_weights=sweep.keep_weights)
    if options.tracking:
        yield _tracking(store, tracking_uri(store.beside, options.tracking_uri))


def _nobody(_: Questions) -> Mapping[str, NodeReport | str]:
    """The reports if the cluster cannot be reached: none."""
    return {}


def _this_machine(questions: Questions) -> Mapping[str, NodeReport | str]:
    """This machine's report; trials would run here if Ray started."""
    return {"this machine": look(questions)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Surveyed:
    """The reports of all machines.

    Attributes:
        here: this machine's report.
        reports: the reports of machines that may run trials, by address.
        silent: why other machines did not report.
        seen: the reports that this machine found in the store.
    """

    here: NodeReport
    reports: Mapping[str, NodeReport]
    silent: Mapping[str, str]
    seen: frozenset[str]


def _surveyed(survey: Survey, questions: Questions) -> _Surveyed:
    """Ask all machines for reports, and remove the files that they exchange."""
    files, probe = open_files(questions.store), questions.probe
    files.write(probe, b"")
    try:
        answers = survey(questions)
        here = look(questions)
    finally:
        seen = frozenset(name for name in files.names("") if name.startswith(probe))
        for name in seen:
            files.remove(name)
    return _Surveyed(
        here=here,
        reports={node: answer for node, answer in answers.items() if isinstance(answer, NodeReport)},
        silent={node: answer for node, answer in answers.items() if isinstance(answer, str)},
        seen=seen,
    )


def _machines(survey: _Surveyed) -> Iterator[Finding]:
    yield Finding(
        subject="machines",
        found=f"{len(survey.reports)} answered; machines started later are unknown"
        if survey.reports
        else "none answered; start the cluster's workers, then ask again",
        is_fault=not survey.reports,
    )
    for node, why in survey.silent.items():
        yield Finding(
            subject="machines",
            found=f"{node} did not answer: {why}. Install crwn there as it is here (make install), or remove it.",
            is_fault=True,
        )


def _versions(here: NodeReport, reports: Mapping[str, NodeReport]) -> Iterator[Finding]:
    agree = True
    for node, report in reports.items():
        others = [f"{n} {there or 'none'}, not {here.versions[n]}" for n, there in report.versions.items()
                  if there != here.versions[n]]  # fmt: skip
        if others:
            agree = False
            yield Finding(
                subject="versions",
                found=f"on {node}: {'; '.join(others)}. Install there with this checkout's constraints.txt.",
                is_fault=True,
            )
    if agree:
        yield Finding(subject="versions", found=", ".join(f"{n} {v}" for n, v in here.versions.items()))


def _machine_count(number: int) -> str:
    return "1 machine" if number == 1 else f"{number} machines"


def _store(
    store: Store, left: Sequence[TrialSpec], reports: Mapping[str, NodeReport], seen: frozenset[str]
) -> Iterator[Finding]:
    blind = [node for node, report in reports.items() if not report.sees_probe and store.is_folder]
    for node, report in reports.items():
        if node in blind or (report.store_error is None and report.sees_probe and report.answer in seen):
            continue
        yield Finding(
            subject="store",
            found=f"{store.address} on {node}: {report.store_error or 'files written there are not visible here'}. "
            "Make it writable there, or name a shared one with --out.",
            is_fault=True,
        )
    if blind:
        resume = max(map(resume_bytes, left), default=0)
        yield Finding(
            subject="store",
            found=f"{store.address} is not visible on {', '.join(blind)}: results of trials there are sent to this "
            f"machine through Ray, including resume points (at most {resume / MEBIBYTE:.0f} MiB per trial and minute), "
            "and are lost if its disk is. A shared folder, or object storage, avoids this.",
        )
    if len(reports) > len(blind):
        yield Finding(
            subject="store", found=f"{store.address}: written and read from {_machine_count(len(reports) - len(blind))}"
        )


def _data(bases: Sequence[str], reports: Mapping[str, NodeReport]) -> Iterator[Finding]:
    faults = [(node, name, why) for node, report in reports.items() for name, why in report.data_faults.items()]
    for node, name, why in faults:
        yield Finding(
            subject="data",
            found=f"{name} on {node}: {why}" + (_put_there(name) if why.startswith(ABSENT) else ""),
            is_fault=True,
        )
    if reports and not faults:
        yield Finding(subject="data", found=f"{', '.join(bases) or 'none needed'}: on {_machine_count(len(reports))}")


def _put_there(name: str) -> str:
    source = BASE_SETS[name].source
    if source.is_fetchable:
        return f". Put it there, or run `crwn data fetch {name}` there; docs/data.md says what belongs where."
    return f". Put it there: {'; '.join(source.expected)}."


def _gpus(reports: Mapping[str, NodeReport]) -> Iterator[Finding]:
    for node, report in reports.items():
        yield Finding(
            subject="GPUs",
            found=f"{node}: torch can use {report.usable_gpus}"
            + ("" if report.usable_gpus else ". Check the driver with nvidia-smi and torch.cuda.is_available() there."),
            is_fault=not report.usable_gpus,
        )


def _disk(store: Store, left: Sequence[TrialSpec], here: NodeReport, *, keep_weights: bool) -> Iterator[Finding]:
    need = sum(kept_bytes(trial, keep_weights=keep_weights) for trial in left)
    need += max((resume_bytes(trial) for trial in left), default=0)
    has_room = here.free_disk > max(2 * need, MIN_FREE_DISK)
    yield Finding(
        subject="disk",
        found=f"{store.address}: {here.free_disk / GIBIBYTE:.1f} GiB free, at most {need / GIBIBYTE:.2f} GiB needed, "
        "and as much again if MLflow's artifacts are on the same disk"
        + ("" if has_room else ". Free some, or name another folder with --out."),
        is_fault=not has_room,
    )


def kept_bytes(trial: TrialSpec, *, keep_weights: bool) -> int:
    """An upper bound on the bytes of a finished trial; masks take less."""
    blueprint, num_tasks = trial.blueprint(), trial.benchmark.problem().num_tasks
    numbers = num_tasks * (blueprint.stored_per_task + blueprint.statistics_per_task)
    if blueprint.keeps_weights and not keep_weights:
        numbers = 0
    return ROWS_BYTES + 4 * (numbers + (blueprint.stored_shared if keep_weights else 0))


def resume_bytes(trial: TrialSpec) -> int:
    """An upper bound on the bytes of a resume point: all tasks, the current one's optimiser state, the memory."""
    blueprint, problem = trial.blueprint(), trial.benchmark.problem()
    kept = problem.num_tasks * (blueprint.stored_per_task + blueprint.statistics_per_task) + blueprint.stored_shared
    example = problem.input_size + 8 + 4 * problem.num_classes  # bytes of an image, its label, what it was answered
    numbers = kept + 3 * (blueprint.trained_per_task + blueprint.stored_shared) + blueprint.stored_memory
    return 4 * numbers + blueprint.examples_kept * example


def _tracking(store: Store, uri: str) -> Finding:
    try:
        following.connected(store, uri)
    except UserError as error:
        return Finding(subject="MLflow", found=str(error), is_fault=True)
    return Finding(subject="MLflow", found=f"{hide_password(uri)} answers")
