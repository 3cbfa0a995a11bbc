"""One trial from its spec to its results."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import crwn.engine
import crwn.trial
from crwn import backbone, contexts
from crwn.backbone import Backbone, BackboneSpec
from crwn.benchmarks.rotated import RotatedSpec
from crwn.benchmarks.split import SplitSpec
from crwn.data import DataError, Datasets
from crwn.data.mnist import MNIST_BASE
from crwn.events import Numerics, Progress, ResumePoint
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.spec import Blueprint, Grouping, ProblemShape, TrainingSpec
from crwn.trial import Allowance, EquipmentError, Finished, Started, decide_numerics, iterate_trial, run_trial
from crwn.trial_spec import TrialSpec
from tests.methods import CASES
from tests.refusals import refused


def trial(name: str = "neuromodnet", *, updates: int = 4, learning_rate: float = 0.01, **changes: Any) -> TrialSpec:
    training = TrainingSpec(learning_rate=learning_rate, updates_per_task=updates, batch_size=64)
    return CASES[name].trial(**{"training": training, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedSpec:
    """NeuroModNet with another rule for grouping tasks."""

    grouping: Grouping
    kind: str = "neuromodnet"

    def training(self) -> TrainingSpec:
        return TrainingSpec(learning_rate=0.01)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        blueprint = NeuroModNetSpec().blueprint(scale, problem, seed)
        if self.grouping == "all":
            return dataclasses.replace(blueprint, presentation="together")
        return dataclasses.replace(blueprint, moves_shared="always" if self.grouping == "one" else "never")


@pytest.mark.parametrize(
    ("grouping", "scale", "num_tasks", "group_size"),
    [
        ("one", "FC256", 36, 1),
        ("all", "FC256", 36, 36),
        ("any", "FC256", 36, 4),
        ("any", "FC256", 3, 3),
        ("any", "FC999999", 36, 1),
    ],
)
def test_on_a_cpu_a_few_tasks_are_learned_together(
    monkeypatch: pytest.MonkeyPatch, grouping: Grouping, scale: str, num_tasks: int, group_size: int
) -> None:
    """Four where there are so many and a cache holds their activations; kernel and threads are those of the machine."""
    asked = []

    def choose(device: str, dtype: torch.dtype) -> str:
        asked.append((device, dtype))
        return "onednn"

    monkeypatch.setattr(crwn.trial, "choose_kernel", choose)
    spec = trial(method=GroupedSpec(grouping=grouping), benchmark=RotatedSpec(num_tasks=num_tasks), scale=scale)
    numerics = decide_numerics(spec, Allowance(threads=3))
    assert numerics == Numerics(device="cpu", group_size=group_size, kernel="onednn", threads=3)
    assert asked == [("cpu", torch.float32)]


@pytest.mark.parametrize("name", ["supsup", "stl"])
def test_tasks_with_weights_of_their_own_are_learned_one_at_a_time_on_a_cpu(name: str) -> None:
    """Their scores or weights fill the caches alone."""
    assert decide_numerics(trial(name, benchmark=RotatedSpec(), scale="FC256")).group_size == 1


@pytest.mark.parametrize(
    ("memory", "grouping", "group_size"),
    [(140e9, "any", 36), (140e9, "one", 1), (1e3, "all", 36), (1e3, "any", 1)],
)
def test_on_a_gpu_as_many_tasks_as_fit(
    monkeypatch: pytest.MonkeyPatch, memory: float, grouping: Grouping, group_size: int
) -> None:
    """All 36 in a large memory, at least one in any; a method that allows one, or only all, is not asked."""
    properties = SimpleNamespace(total_memory=int(memory))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    spec = trial(method=GroupedSpec(grouping=grouping), benchmark=RotatedSpec(), scale="FC256")
    numerics = decide_numerics(spec, Allowance(device="cuda"))
    assert numerics == Numerics(device="cuda", group_size=group_size, kernel="plain", threads=1)


@pytest.mark.parametrize(
    ("device", "grouping", "most", "group_size"),
    [
        ("cuda", "any", 5, 5),
        ("cuda", "any", 99, 36),
        ("cuda", "one", 5, 1),
        ("cuda", "all", 5, 36),
        ("cpu", "any", 2, 2),
        ("cpu", "any", 5, 4),
    ],
)
def test_groups_can_be_made_smaller(
    monkeypatch: pytest.MonkeyPatch, device: Any, grouping: Grouping, most: int, group_size: int
) -> None:
    """At most so many tasks where the rule would take more; never more than it, and never against the method."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=int(140e9)))
    spec = trial(method=GroupedSpec(grouping=grouping), benchmark=RotatedSpec(), scale="FC256")
    assert decide_numerics(spec, Allowance(device=device, max_group_size=most)).group_size == group_size


def test_a_group_on_a_gpu_leaves_room_for_other_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of a group, 60,000 by 784 bytes a task, and those of one being made take most of an eighth of it."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=8_000_000_000))
    group_size = decide_numerics(trial(benchmark=RotatedSpec(), scale="FC256"), Allowance(device="cuda")).group_size
    image_bytes = (group_size + 1) * MNIST_BASE.num_train * 784
    assert 8_000_000_000 / 8 / 1.2 < image_bytes <= 8_000_000_000 / 8


def test_tasks_of_split_classes_hold_their_share_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 20 tasks of five classes fit where their images together do: the data set once, not twenty times."""
    memory = 8 * 1.5 * 50_000 * 3072  # an eighth holds CIFAR-100, and activations besides
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=int(memory)))
    assert decide_numerics(trial(benchmark=SplitSpec(), scale="FC8"), Allowance(device="cuda")).group_size == 20


@pytest.mark.parametrize("name", CASES)
def test_a_finished_trial_has_all_results(name: str, digits: Datasets) -> None:
    """All tests, every task's contexts, the backbone's fingerprint, what it was computed with.

    Tests are the diagonal and the last row; where tasks disturb each other the rows between too; where all are learned
    together the last row.
    """
    spec = trial(name)
    finished = run_trial(spec, data=digits, backbones=backbone.draw)
    blueprint, num_tasks = spec.blueprint(), spec.benchmark.problem().num_tasks
    diagonal = [(task, task + 1) for task in range(num_tasks)]
    again = {task + 1: [(earlier, task + 1) for earlier in range(task)] for task in range(num_tasks)}
    if not blueprint.is_continual:
        tests = [(task, num_tasks) for task in range(num_tasks)]
    elif blueprint.is_independent:
        tests = diagonal + again[num_tasks]
    else:
        tests = [test for own in diagonal for test in (own, *again[own[1]])]
    assert [(row.task, row.tasks_learned) for row in finished.rows] == tests
    for row in finished.rows:
        assert 0 <= row.accuracy <= 1
        assert row.accuracy * row.num_test == pytest.approx(round(row.accuracy * row.num_test))
    if CASES[name].benchmark is None:
        assert {row.num_test for row in finished.rows} == {360}

    drawn = backbone.draw(spec.blueprint().backbone)
    assert finished.fingerprint == drawn.fingerprint
    bank = contexts.load(finished.contexts)
    assert (bank.trial_id, bank.fingerprint) == (spec.trial_id, drawn.fingerprint)
    # Some have weights, which are kept on request, and nothing beside them.
    assert bool(bank.tensors) == (blueprint.stored_per_task > 0 and not blueprint.keeps_weights)
    assert all(len(tensor) == num_tasks for tensor in bank.tensors.values())

    assert finished.numerics == decide_numerics(spec)
    assert 10e6 < finished.held_memory <= finished.peak_memory < 1e12  # bytes: Python with torch is over ten megabytes
    assert finished.device_name == torch.backends.cpu.get_cpu_capability()


@pytest.mark.skipif(not crwn.trial.PEAK_RESET.exists(), reason="only Linux forgets a process's peak")
def test_what_a_process_took_before_is_no_part_of_a_trials_peak() -> None:
    """A process runs many trials; what it still holds when one begins counts as held memory."""
    earlier = np.ones(2**25)  # 256 MiB
    taken = crwn.trial.peak_memory("cpu")
    del earlier
    held = crwn.trial.start_measuring("cpu")
    assert held < taken - 2**27
    assert held <= crwn.trial.peak_memory("cpu") < taken - 2**27


def test_a_gpus_memory_is_measured_anew_for_every_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """What earlier ones freed goes back, their peak is forgotten, what is left is held."""
    asked: list[str] = []
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: asked.append(name))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 7)
    assert crwn.trial.start_measuring("cuda") == 7
    assert asked == ["empty_cache", "reset_peak_memory_stats"]


def test_events_come_in_order(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the start, last the results, which are also what is returned; between them progress and resume points."""
    monkeypatch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
    events: list[Any] = []
    finished = run_trial(trial(), data=digits, backbones=backbone.draw, on_event=events.append)
    assert isinstance(events[0], Started)
    assert events[0].progress == Progress(tasks_learned=0, num_tasks=3, step=0, num_steps=4, accuracy=None)
    assert events[0].numerics == decide_numerics(trial())
    assert events[-1] is finished
    assert {type(event) for event in events[1:-1]} == {Progress, ResumePoint}


def test_nothing_happens_before_the_first_event_is_asked_for() -> None:
    """A trial is a generator: its caller is in control from the start."""

    def refuse(_: BackboneSpec) -> Backbone:
        raise AssertionError("drawn too early")

    iterate_trial(trial(), data=Datasets({}, []), backbones=refuse)


def test_numerics_given_are_used(digits: Datasets) -> None:
    """In place of the rule's."""
    numerics = Numerics(device="cpu", group_size=2, kernel="plain", threads=1)
    finished = run_trial(trial(), data=digits, backbones=backbone.draw, numerics=numerics)
    assert finished.numerics == numerics


def test_a_trial_keeps_the_numerics_it_began_with(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed trial uses the numerics with which it began, whatever is requested."""
    monkeypatch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
    begun = Numerics(device="cpu", group_size=2, kernel="plain", threads=1)
    events = iterate_trial(trial(), data=digits, backbones=backbone.draw, numerics=begun)
    point = next(event for event in events if isinstance(event, ResumePoint))
    events.close()
    for device in ("cpu", "cuda"):
        started, *_, finished = iterate_trial(
            trial(),
            data=digits,
            backbones=backbone.draw,
            allowance=Allowance(device=device),
            numerics=dataclasses.replace(begun, group_size=3),
            resume_from=point.content,
        )
        assert started.numerics == finished.numerics == begun


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_of_the_trial_and_then_as_before(digits: Datasets, threads: int) -> None:
    """While a trial computes torch has its threads; afterwards, however it ends, those that it had before."""
    before = torch.get_num_threads()
    try:
        for outside in (1, 2):
            torch.set_num_threads(outside)
            seen = []
            run_trial(
                trial(updates=2),
                data=digits,
                backbones=backbone.draw,
                allowance=Allowance(threads=threads),
                on_event=lambda _, seen=seen: seen.append(torch.get_num_threads()),
            )
            assert set(seen) == {threads}
            assert torch.get_num_threads() == outside

            events = iterate_trial(trial(), data=digits, backbones=backbone.draw, allowance=Allowance(threads=threads))
            next(events)
            events.close()
            assert torch.get_num_threads() == outside
    finally:
        torch.set_num_threads(before)


def test_an_error_of_the_driver_leaves_the_threads_as_before(digits: Datasets) -> None:
    """An exception out of `on_event` ends the trial at once."""

    def fail(_: object) -> None:
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        run_trial(trial(), data=digits, backbones=backbone.draw, allowance=Allowance(threads=before + 1), on_event=fail)
    assert torch.get_num_threads() == before


def test_a_kernel_that_is_not_there_is_an_error(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Used before by the same trial, with another torch: the error names it and says what to do."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    begun = Numerics(device="cpu", group_size=1, kernel="onednn", threads=1)
    with refused(EquipmentError, "no-kernel", says="'onednn'"):
        run_trial(trial(), data=digits, backbones=backbone.draw, numerics=begun)


def test_a_gpu_that_is_not_there_is_an_error(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for, or used before by the same trial: the error says what was expected and how to check."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_gpu = Numerics(device="cuda", group_size=3, kernel="plain", threads=1)
    with refused(EquipmentError, "no-gpu"):
        run_trial(trial(), data=digits, backbones=backbone.draw, numerics=on_gpu)

    monkeypatch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
    events = iterate_trial(trial(), data=digits, backbones=backbone.draw)
    point = next(event for event in events if isinstance(event, ResumePoint)).content
    events.close()
    monkeypatch.setattr(crwn.trial, "read_numerics", lambda _: on_gpu)
    with refused(EquipmentError, "no-gpu"):
        run_trial(trial(), data=digits, backbones=backbone.draw, resume_from=point)


def test_a_gpu_asked_for_by_name_that_is_not_there_is_the_same_error(
    digits: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that is asked for gets our error, not that of a driver that is asked how much memory it has."""

    def fail(_: object) -> None:
        raise RuntimeError("Found no NVIDIA driver on your system")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_properties", fail)
    with refused(EquipmentError, "no-gpu"):
        run_trial(trial(), data=digits, backbones=backbone.draw, allowance=Allowance(device="cuda"))


def test_weights_that_changed_on_their_way_are_an_error(digits: Datasets) -> None:
    """The fingerprint is checked where the weights are used, before anything is learned from them."""

    def altered(spec: BackboneSpec) -> Backbone:
        drawn = backbone.draw(spec)
        return dataclasses.replace(drawn, arrays={**drawn.arrays, "layer1": drawn.arrays["layer1"] * 2})

    with refused(InvalidError, "backbone-changed"):
        run_trial(trial(), data=digits, backbones=altered)


def test_a_missing_data_set_is_an_error() -> None:
    """A worker without the files says so, and fetches nothing."""
    nowhere = Datasets({"digits": MNIST_BASE}, roots=[])
    with refused(DataError, "data-set-missing", says=["--data-root", "$CRWN_DATA"]):
        run_trial(trial(), data=nowhere, backbones=backbone.draw)


SHARED = {f"shared.layer{number}.weight" for number in (1, 2, 3)}


@pytest.mark.parametrize(
    ("method", "weights", "num_own"),
    [
        (NeuroModNetSpec(), set(), 6),
        (NeuroModNetSpec(pretrained=True), SHARED, 6),
        (METHODS["batche"].spec(), SHARED, 6),
        (METHODS["mtl"].spec(), SHARED, 0),
        (METHODS["psp"].spec(), SHARED, 0),
        (METHODS["stl"].spec(), {"layer1.weight", "layer2.weight", "layer3.weight"}, 0),
        (METHODS["supsup"].spec(), set(), 3),
    ],
    ids=["neuromodnet", "pretrained", "batche", "mtl", "psp", "stl", "supsup"],
)
def test_trained_weights_are_kept_on_request(digits: Datasets, method: Any, weights: set[str], num_own: int) -> None:
    """Those that tasks share [O, I], those of each task [T, O, I]; without the request only what is small is kept.

    Nothing else changes with it.
    """
    spec = trial(method=method, scale="FC8")
    small, large = (
        run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=keep_weights)
        for keep_weights in (False, True)
    )
    assert [row.loss for row in small.rows] == [row.loss for row in large.rows]
    without, kept = (contexts.load(finished.contexts).tensors for finished in (small, large))
    assert set(kept) - set(without) == weights
    assert len(without) == num_own
    assert all(torch.equal(kept[name], tensor) for name, tensor in without.items())
    axis = (3,) if method.kind == "stl" else ()
    assert all(tuple(kept[name].shape)[-2:] in [(8, 64), (8, 8), (10, 8)] for name in weights)
    assert all(tuple(kept[name].shape)[:-2] == axis for name in weights)


@pytest.mark.parametrize(
    ("name", "group_size", "code", "expected"), [("psp", 2, "group-not-one", 1), ("mtl", 2, "group-not-all", 3)]
)
def test_groups_that_a_method_cannot_learn_are_refused(
    digits: Datasets, name: str, group_size: int, code: str, expected: int
) -> None:
    """Numerics that were given by hand are checked before anything is learned."""
    numerics = Numerics(device="cpu", group_size=group_size, kernel="plain", threads=1)
    with refused(InvalidError, code, says=["group_size: ", f"expected {expected}, given {group_size}"]):
        run_trial(trial(name), data=digits, backbones=backbone.draw, numerics=numerics)


@pytest.mark.parametrize("name", ["neuromodnet", "supsup", "batche", "psp", "mtl"])
def test_frozen_weights_stay_as_they_are(name: str, digits: Datasets) -> None:
    """After a trial the arrays, which other trials read too, have the fingerprint that they were drawn with.

    Also where they are only the start of weights that are trained.
    """
    drawn = backbone.draw(trial(name).blueprint().backbone)
    for dtype in ("float32", "float64"):
        training = TrainingSpec(learning_rate=0.01, updates_per_task=3, dtype=dtype)
        run_trial(trial(name, training=training), data=digits, backbones=lambda _: drawn)
        assert drawn.checked() is drawn


def test_the_state_of_global_generators_is_not_touched(digits: Datasets) -> None:
    """Neither Python's nor NumPy's nor torch's: everything random has a stream of its own."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 (it must stay untouched)
    for name in CASES:
        run_trial(trial(name), data=digits, backbones=backbone.draw)
    after = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 (as above)
    assert after[0] == before[0]
    assert after[1][0] == before[1][0]
    assert np.array_equal(after[1][1], before[1][1])
    assert after[1][2:] == before[1][2:]
    assert torch.equal(after[2], before[2])


def test_global_generators_have_no_say(digits: Datasets) -> None:
    """Whatever state they are in, a trial computes the same bytes."""
    contents = set()
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (as a careless library might)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            contents.add(run_trial(trial(), data=digits, backbones=backbone.draw).contexts)
    assert len(contents) == 1


def test_training_that_diverges_is_an_error(digits: Datasets) -> None:
    """NeuroModNet at an absurd rate: the error names the task, the update and the rate to lower."""
    with pytest.raises(FloatingPointError, match=r"^task 0: .*nan.* 4 .*1e\+30"):
        run_trial(trial(learning_rate=1e30), data=digits, backbones=backbone.draw)


def test_diverging_in_the_last_update_is_an_error_too(digits: Datasets) -> None:
    """The one update's loss is still that of the start; what it leads to shows in the test."""
    with pytest.raises(FloatingPointError, match=r"^task 0: .*test.*nan.*1e\+30"):
        run_trial(trial(learning_rate=1e30, updates=1), data=digits, backbones=backbone.draw)


def test_a_step_of_the_loop_needs_no_results(digits: Datasets) -> None:
    """Stopping a trial in the middle is leaving its generator; nothing is finished then."""
    events = iterate_trial(trial(), data=digits, backbones=backbone.draw)
    assert isinstance(next(events), Started)
    assert not isinstance(next(events), Finished)
    events.close()
    with pytest.raises(StopIteration):
        next(events)
