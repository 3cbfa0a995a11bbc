"""Resuming from a resume point computes the same bits as an uninterrupted trial."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import crwn.engine
import crwn.evaluation
import crwn.groups
import crwn.learner
import crwn.resume
from crwn import backbone, tensorfile
from crwn.backbone import Backbone, BackboneSpec
from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.rotated import RotatedSpec
from crwn.benchmarks.split import SplitSpec
from crwn.benchmarks.turning import TurningSpec
from crwn.data import Datasets
from crwn.events import Numerics, Progress, ResumePoint
from crwn.methods import METHODS
from crwn.methods.protocol import Method, Surroundings
from crwn.resume import ResumeError, read_numerics
from crwn.spec import MethodSpec, TrainingSpec
from crwn.trial import Event, Finished, Started, run_trial
from crwn.trial_spec import TrialSpec
from tests.methods import CASES, ELSEWHERE
from tests.refusals import refused

PRETRAINED = "neuromodnet-pretrained"
CHANGING = "images and rates that change"
RESNET = ", ResNet"
BY_ONE = pytest.mark.slow(reason="each of a ResNet's nine resume points is gone on from to the end")

SPLIT: dict[str, Any] = {
    "scale": "FC8",
    "benchmark": SplitSpec(base="digits", num_tasks=2),
    "training": TrainingSpec(
        learning_rate=0.01,
        updates_per_task=4,
        batch_size=250,
        optimizer="adam",
        weight_decay=1e-4,
        schedule="cosine",
    ),
}
"""Two tasks of half the classes, two batches an epoch."""


def trial(name: str = "neuromodnet", **changes: Any) -> TrialSpec:
    """Three tasks of four updates, the last in the second epoch: 1,437 examples by 600 are three batches an epoch."""
    if name == CHANGING:
        return CASES["neuromodnet"].trial(**{**SPLIT, **changes})
    if name in ELSEWHERE:
        return elsewhere(name)
    case = CASES[name.removesuffix(RESNET)]
    if name.endswith(RESNET):
        training = dataclasses.replace(SPLIT["training"], updates_per_task=3, batch_size=100)
        return case.trial(**{**SPLIT, "scale": "nf1", "training": training, **changes})
    training = TrainingSpec(learning_rate=case.learning_rate, updates_per_task=4, batch_size=600)
    if case.benchmark is not None:
        changes = {"benchmark": case.shortened(3), **changes}
    return case.trial(**{"training": training, **changes})


def elsewhere(name: str) -> TrialSpec:
    """Two tasks of four updates, or a stream of nine that is tested after every three: buffers fill on the way."""
    spec = ELSEWHERE[name].trial()
    if not spec.benchmark.problem().is_stream:
        return spec
    assert isinstance(spec.benchmark, TurningSpec)
    benchmark, training = dataclasses.replace(spec.benchmark, test_every=3), spec.training
    return dataclasses.replace(spec, benchmark=benchmark, training=dataclasses.replace(training, batch_size=160))


def is_resnet(name: str) -> bool:
    """Whether the case exists as a ResNet-18 for split classes."""
    try:
        trial(name + RESNET)
    except ValueError:
        return False
    return True


def group_sizes(spec: TrialSpec) -> tuple[int, ...]:
    return {"one": (1,), "any": (1, 2), "all": (spec.benchmark.problem().num_tasks,)}[spec.blueprint().grouping]


def to_go_on() -> Iterator[Any]:
    """Every case in the groups that it can be learned in, as a ResNet too where it is one."""
    for name in [*CASES, *ELSEWHERE, CHANGING, *(name + RESNET for name in METHODS if is_resnet(name))]:
        spec = trial(name)
        for group_size in group_sizes(spec):
            slow = name.endswith(RESNET) and group_size < max(group_sizes(spec))
            yield pytest.param(name, group_size, marks=BY_ONE if slow else ())


def num_points(spec: TrialSpec, group_size: int) -> int:
    """One after each update, after the tests of tasks that were just learned, and after every later test."""
    num_tasks, num_updates = spec.benchmark.problem().num_tasks, spec.training.updates_per_task
    blueprint = spec.blueprint()
    match "any" if blueprint.is_independent else blueprint.grouping:
        case "all" | "one" if spec.benchmark.problem().is_stream:  # tested between updates, and then all at once
            return spec.num_updates() + 1
        case "all":  # T times the updates, and then all tests at once
            return num_tasks * num_updates + 1
        case "one":  # after each task those before it are tested
            return num_tasks * (num_updates + 1) + num_tasks * (num_tasks - 1) // 2
        case "any":  # at the end all but the last task are tested
            alone = blueprint.moves_shared == "first segment"
            num_groups = alone + math.ceil((num_tasks - alone) / group_size)
            return num_groups * (num_updates + 1) + num_tasks - 1


def run(
    spec: TrialSpec, data: Datasets, *, group_size: int = 1, resume_from: bytes | None = None
) -> tuple[Finished, list[Event]]:
    events: list[Event] = []
    finished = run_trial(
        spec,
        data=data,
        backbones=backbone.draw,
        on_event=events.append,
        resume_from=resume_from,
        numerics=Numerics(device="cpu", group_size=group_size, kernel="plain", threads=1),
        keep_weights=True,
    )
    return finished, events


def points_of(events: list[Event]) -> list[bytes]:
    return [event.content for event in events if isinstance(event, ResumePoint)]


TIMES = ("train_seconds", "eval_seconds", "tested", "time")


def without_times(value: Any) -> Any:
    """A value of rows and headers without the fields that hold times, which no two runs share."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list | tuple) else value


def rows_of(finished: Finished) -> Any:
    return without_times([dataclasses.asdict(row) for row in finished.rows])


@pytest.fixture
def at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume point is due at once, and a point of the curve after three updates: blocks are open at most points."""
    monkeypatch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
    monkeypatch.setattr(crwn.engine, "RESUME_COST_FACTOR", 0.0)
    monkeypatch.setattr(crwn.groups, "CURVE_EVERY", 3)


@pytest.mark.usefixtures("at_every_step")
@pytest.mark.parametrize(("name", "group_size"), list(to_go_on()))
def test_going_on_from_any_point_gives_the_same_results(digits: Datasets, name: str, group_size: int) -> None:
    """Stopped within a task, between groups, during tests: all but the times is the same, bit for bit.

    Trained weights, also those that tasks share, are compared as parts of the contexts. The resume points that follow
    are the same too, which means that a trial may be stopped any number of times.
    """
    spec = trial(name)
    undisturbed, events = run(spec, digits, group_size=group_size)
    points = points_of(events)
    assert len(points) == num_points(spec, group_size)
    for index, point in enumerate(points):
        finished, later_events = run(spec, digits, resume_from=point)
        assert rows_of(finished) == rows_of(undisturbed)
        assert finished.contexts == undisturbed.contexts
        assert finished.fingerprint == undisturbed.fingerprint
        assert finished.numerics == undisturbed.numerics

        later_points = points_of(later_events)
        assert len(later_points) == len(points) - index - 1
        for later, expected in zip(later_points, points[index + 1 :], strict=True):
            (tensors, header), (expected_tensors, expected_header) = map(tensorfile.parse, (later, expected))
            assert without_times(header) == without_times(expected_header)
            assert set(tensors) == set(expected_tensors)
            assert all(torch.equal(tensor, expected_tensors[key]) for key, tensor in tensors.items())


@pytest.mark.usefixtures("at_every_step")
@pytest.mark.parametrize(
    ("name", "group_size", "changing", "constant"),
    [
        ("neuromodnet", 1, {"context"}, {"strength"}),
        (PRETRAINED, 1, {"context", "weight"}, {"strength"}),
        ("psp", 1, {"weight"}, {"rotation"}),
        ("batche", 2, {"weight", "r", "s"}, set()),
        ("mtl", 3, {"weight"}, set()),
    ],
)
def test_points_hold_what_changes(
    digits: Datasets, name: str, group_size: int, changing: set[str], constant: set[str]
) -> None:
    """Constants of a task that is learned, such as rotations and strengths that are not trained, are drawn again.

    Shared weights are in every point once they can have changed: as they were before the group, and, where the group
    trains them, as they are.
    """
    local = {"modulation": "local"} if name.startswith("neuromodnet") else {}
    method = dataclasses.replace(trial(name).method, **local)
    _, events = run(trial(name, method=method), digits, group_size=group_size)
    kinds = []
    for point in points_of(events):
        tensors, header = tensorfile.parse(point)
        kinds.append({key.split(".")[-1] for key in tensors if key.startswith("0.state.")})
        has_shared = any(key.startswith("shared.") for key in tensors)
        assert has_shared == ("weight" in changing)
        assert bool(kinds[-1]) == (header["groups"] != [])
    assert set.union(*kinds) == changing
    assert not constant & set.union(*kinds)
    if name in ("batche", PRETRAINED):
        assert changing in kinds
        assert changing - {"weight"} in kinds  # from the second task on


HOOKS = [
    (name, hook)
    for name, case in CASES.items()
    for hook in ("begin", "end")
    if getattr(METHODS[case.method.kind].build, hook) is not getattr(Method, hook)
]
"""The cases that do something when a segment begins or ends."""


@pytest.mark.usefixtures("at_every_step")
@pytest.mark.parametrize(("name", "hook"), HOOKS)
def test_what_is_killed_where_a_segment_begins_or_ends_is_done_again(
    digits: Datasets, monkeypatch: pytest.MonkeyPatch, name: str, hook: str
) -> None:
    """Killed in the second segment's hook, after all that it computes, a trial resumes to the same bits."""
    spec = trial(name)
    undisturbed, _ = run(spec, digits)
    entry, calls, events = METHODS[spec.method.kind], itertools.count(1), list[Event]()

    def build(settings: MethodSpec, surroundings: Surroundings) -> Method:
        method = entry.build(settings, surroundings)
        original = getattr(method, hook)

        def killed(*arguments: Any) -> Any:
            moved = original(*arguments)
            if next(calls) == 2:
                raise KeyboardInterrupt
            return moved

        monkeypatch.setattr(method, hook, killed)
        return method

    numerics = Numerics(device="cpu", group_size=1, kernel="plain", threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(crwn.learner, "METHODS", {spec.method.kind: dataclasses.replace(entry, build=build)})
        with pytest.raises(KeyboardInterrupt):
            run_trial(spec, data=digits, backbones=backbone.draw, on_event=events.append, numerics=numerics)
    finished, _ = run(spec, digits, resume_from=points_of(events)[-1])
    assert rows_of(finished) == rows_of(undisturbed)
    assert finished.contexts == undisturbed.contexts


@pytest.mark.usefixtures("at_every_step")
def test_progress_goes_on_where_it_was(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed trial first reports where it resumes: what was reported when the point was made."""
    monkeypatch.setattr(crwn.engine, "PROGRESS_SECONDS", 0.0)
    _, events = run(trial(), digits, group_size=2)
    reports = [event for event in events if isinstance(event, Progress)]
    points = points_of(events)
    assert len(reports) == len(points)
    for point, report in zip(points, reports, strict=True):
        _, (started, *_) = run(trial(), digits, resume_from=point)
        assert isinstance(started, Started)
        assert started.progress == report
        assert started.numerics.group_size == 2


@pytest.mark.usefixtures("at_every_step")
def test_training_seconds_go_on_too(digits: Datasets) -> None:
    """What was measured before a stop stays: rows of finished tasks keep their seconds, and a begun group its sum."""
    finished, events = run(trial(), digits)
    for index, point in enumerate(points_of(events)):
        _, header = tensorfile.parse(point)
        again, _ = run(trial(), digits, resume_from=point)
        num_rows = len(header["rows"])
        assert [row.eval_seconds for row in again.rows[:num_rows]] == [
            row.eval_seconds for row in finished.rows[:num_rows]
        ]
        if header["groups"]:
            (group,) = header["groups"]
            assert group["step"] == index % 5 + 1
            assert again.rows[num_rows].train_seconds > group["train_seconds"] > 0


@pytest.mark.usefixtures("at_every_step")
@pytest.mark.parametrize("group_size", [1, 2])
def test_what_was_made_before_a_stop_keeps_its_time(
    digits: Datasets, monkeypatch: pytest.MonkeyPatch, group_size: int
) -> None:
    """Tests and points of curves that a resume point has keep their times, bit for bit; later ones are later.

    The clock is one that every reading moves on, by a number that is no short decimal.
    """
    readings = itertools.count()
    clock = SimpleNamespace(time=lambda: 1.75e9 + next(readings) / 3)
    for module in (crwn.groups, crwn.evaluation):
        monkeypatch.setattr(module, "time", clock)
    _, events = run(trial(), digits, group_size=group_size)
    curves_kept = 0
    for point in (event for event in events if isinstance(event, ResumePoint)):
        stopped = 1.75e9 + next(readings) / 3
        finished, _ = run(trial(), digits, resume_from=point.content)
        num_rows = len(point.rows)
        assert finished.rows[:num_rows] == point.rows  # with all times, but for those of points of curves
        kept = {row.task: row.curve for row in point.rows if row.curve} | point.curves
        times = [made.tested for made in finished.rows[num_rows:]]
        for row in finished.rows[:3]:
            num_points = len(kept.get(row.task, ()))
            before = [made.time for made in row.curve[:num_points]]
            assert before == [made.time for made in kept.get(row.task, ())]
            assert before == sorted(set(before))
            assert all(time < stopped for time in before)
            times += [made.time for made in row.curve[num_points:]]
        assert all(time > stopped for time in times)
        curves_kept += sum(map(len, point.curves.values()))
        tested = [made.tested for made in finished.rows]
        assert tested == sorted(set(tested))
    assert curves_kept > 0


@pytest.fixture
def points(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The resume points of the trial, after every update."""
    with monkeypatch.context() as patch:
        patch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
        patch.setattr(crwn.engine, "RESUME_COST_FACTOR", 0.0)
        return points_of(run(trial(), digits)[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"scale": "FC8"},
        {"benchmark": PermutedSpec(base="digits", num_tasks=3)},
        {"training": TrainingSpec(learning_rate=0.02, updates_per_task=4, batch_size=600)},
        {"method": METHODS["neuromodnet"].spec(modulation="local")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_point_of_another_trial_is_refused(digits: Datasets, points: list[bytes], changes: dict[str, Any]) -> None:
    """The error names both trials."""
    other = trial(**changes)
    with refused(ResumeError, "resume-point-of-another", says=[trial().trial_id, other.trial_id]):
        run(other, digits, resume_from=points[2])


def test_a_point_of_other_weights_is_refused(digits: Datasets, points: list[bytes]) -> None:
    """The same trial over a backbone that was drawn otherwise is not the same trial."""

    def draw_others(spec: BackboneSpec) -> Backbone:
        return backbone.draw(dataclasses.replace(spec, seed=99))

    mine = backbone.draw(trial().blueprint().backbone).fingerprint
    with refused(ResumeError, "resume-point-of-another", says=[trial().trial_id, mine]):
        run_trial(trial(), data=digits, backbones=draw_others, resume_from=points[2])


def test_a_point_cut_off_anywhere_is_refused(digits: Datasets, points: list[bytes]) -> None:
    """Every beginning of the file, in steps of 50 bytes, and none of it."""
    point = points[6]
    for length in [*range(0, len(point), 50), len(point) - 1]:
        with refused(ResumeError, "not-tensors"):
            run(trial(), digits, resume_from=point[:length])


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "not-tensors"),
        (b"garbage" * 100, "not-tensors"),
        (b"\0" * 1000, "not-tensors"),
        (tensorfile.dump({}, {"format": crwn.resume.FORMAT}), "resume-point-unreadable"),
    ],
)
def test_what_is_no_resume_point_is_refused(digits: Datasets, content: bytes, code: str) -> None:
    """Other bytes, and another file of the same format."""
    with refused(ResumeError, code):
        run(trial(), digits, resume_from=content)


def test_contexts_are_no_resume_point(digits: Datasets) -> None:
    """The other file that a trial writes is not mistaken for one."""
    finished, _ = run(trial(), digits)
    with refused(ResumeError, "resume-point-format"):
        run(trial(), digits, resume_from=finished.contexts)


@pytest.mark.parametrize("given", [1, 2, 3, 4, 5, 8])
def test_another_format_is_refused(digits: Datasets, points: list[bytes], given: int) -> None:
    """A point written by another version names both formats: earlier ones held other tensors, the next is not known."""
    tensors, header = tensorfile.parse(points[2])
    other = tensorfile.dump(tensors, {**header, "format": given})
    with refused(ResumeError, "resume-point-format", says=["6 or 7", f"given {given}"]):
        run(trial(), digits, resume_from=other)


@pytest.mark.parametrize("part", ["state", "block"])
def test_a_point_that_lacks_a_tensor_is_refused(digits: Datasets, points: list[bytes], part: str) -> None:
    """A hand-made file without a part of the state is not silently completed."""
    tensors, header = tensorfile.parse(points[6])
    names = [name for name in tensors if name.startswith(f"0.{part}.")]
    assert names
    for missing in names:
        left = {name: tensor for name, tensor in tensors.items() if name != missing}
        with refused(ResumeError, "resume-point-unusable", says=missing.removeprefix(f"0.{part}.")):
            run(trial(), digits, resume_from=tensorfile.dump(left, header))


def test_a_point_that_lacks_shared_weights_is_refused(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not silently replaced by those that were drawn."""
    monkeypatch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
    _, events = run(trial("batche"), digits)
    tensors, header = tensorfile.parse(points_of(events)[0])
    missing = "shared.layer2.weight"
    left = {name: tensor for name, tensor in tensors.items() if name != missing}
    assert len(left) == len(tensors) - 1
    with refused(ResumeError, "resume-point-unusable", says="'layer2.weight'"):
        run(trial("batche"), digits, resume_from=tensorfile.dump(left, header))


def test_a_flipped_bit_is_noticed(digits: Datasets, points: list[bytes]) -> None:
    """Wherever a bit flips, in the header or in the numbers, the point is refused and not trained on."""
    point = points[6]
    for place in range(0, len(point), len(point) // 100):
        damaged = bytearray(point)
        damaged[place] ^= 1
        with pytest.raises(ResumeError) as caught:
            run(trial(), digits, resume_from=bytes(damaged))
        assert caught.value.codes in {("not-tensors",), ("content-changed",)}


def test_numerics_are_read_from_a_point(points: list[bytes]) -> None:
    """A resumed trial takes its numerics from the resume point."""
    assert read_numerics(points[0]) == Numerics(device="cpu", group_size=1, kernel="plain", threads=1)


def test_reading_numerics_needs_a_point() -> None:
    """Bytes that are none are refused before anything is loaded."""
    with refused(ResumeError, "not-tensors"):
        read_numerics(b"garbage")
    header = {"format": crwn.resume.FORMAT, "numerics": {"device": "cpu", "colour": "red"}}
    with refused(ResumeError, "resume-point-unreadable", says="'colour'"):
        read_numerics(tensorfile.dump({}, header))


OLDER = Path(__file__).parent / "resume_points"
"""Points of format 6, in the middle of a group, as the code of that time wrote them."""


@pytest.mark.parametrize("name", sorted(file.stem for file in OLDER.glob("*.safetensors")))
def test_points_of_the_format_before_go_on(name: str, digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they hold is gone on from, to what a trial gives that never stopped: to rounding, on another processor.

    Among them tasks learned together, a first task that shared weights came from, all tasks mixed, running statistics.
    Independent tasks that were learned before the point are what they were then, also where another processor would
    round a bit of SupSup's masks otherwise.
    """
    monkeypatch.setattr(crwn.groups, "CURVE_EVERY", 3)
    content = (OLDER / f"{name}.safetensors").read_bytes()
    _, header = tensorfile.parse(content)
    assert header["format"] == 6
    numerics = read_numerics(content)
    is_resnet = name.endswith("resnet")
    training = TrainingSpec(learning_rate=0.01, updates_per_task=4, batch_size=600, dtype="float64")
    spec = TrialSpec(
        method=METHODS[name.partition("-")[0]].spec(),
        benchmark=SplitSpec(base="digits", num_tasks=5)
        if is_resnet
        else RotatedSpec(base="digits", num_tasks=3, step_degrees=40),
        scale="nf1" if is_resnet else "FC8",
        seed=0,
        training=dataclasses.replace(training, batch_size=64, optimizer="adam") if is_resnet else training,
    )
    whole, _ = run(spec, digits, group_size=numerics.group_size)
    rest, events = run(spec, digits, resume_from=content)
    assert events[0].progress.step == header["groups"][0]["step"]
    assert len(rest.rows) == len(whole.rows)
    losses = {row["task"]: row["loss"] for row in header["rows"] if spec.blueprint().is_independent}
    accuracies = {row["task"]: row["accuracy"] for row in header["rows"] if row["task"] in losses}
    for row, expected in zip(rest.rows, whole.rows, strict=True):
        assert (row.task, row.tasks_learned) == (expected.task, expected.tasks_learned)
        assert row.loss == pytest.approx(losses.get(row.task, expected.loss), rel=1e-6)
        assert row.accuracy == pytest.approx(accuracies.get(row.task, expected.accuracy), abs=1 / row.num_test)
        assert [point.step for point in row.curve] == [point.step for point in expected.curve]
