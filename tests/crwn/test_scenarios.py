"""What the engine tells a learner in each scenario, and how it treats the learner's memory.

The learner is one shared matrix over made-up images; the benchmark's classes, streams and sizes are the tests' own.

Shapes: G lanes, B examples per lane, d = 4 numbers per image, m = 6 classes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch.nn import functional

import crwn.engine
from crwn import seeding
from crwn.backbone import BackboneSpec
from crwn.batches import Batch, Examples
from crwn.benchmarks.augmentation import Augmentation
from crwn.benchmarks.protocol import Curriculum, GateError, Split
from crwn.engine import Engine
from crwn.events import Learned, Numerics, ResumePoint, TaskRow
from crwn.faults import InvalidError
from crwn.methods.protocol import Method, Step, Tensors
from crwn.nn.losses import cross_entropy
from crwn.spec import Blueprint, Scenario, TrainingSpec
from tests.refusals import refused

NUM_CLASSES = 6

pytestmark = pytest.mark.usefixtures("one_thread")


class Groups:
    """Three tasks of two classes each, of 5, 7 and 6 images; image i of task t begins with the bytes t and i."""

    def __init__(self, *, test_every: int = 0) -> None:
        self.sizes = (5, 7, 6)
        self.num_tasks = self.num_segments = 3
        self.test_every = test_every
        self.augmentation: Augmentation | None = None
        self.read: list[int] = []

    def num_examples(self, segment: int) -> int:
        return self.sizes[segment]

    def classes(self, task: int) -> tuple[int, ...]:
        return (2 * task, 2 * task + 1)

    def train_split(self, segment: int) -> Split:
        self.read.append(segment)
        return self._split(segment, self.sizes[segment])

    def test_split(self, task: int) -> Split:
        return self._split(task, 8)

    def mixture(self, segments: Sequence[int]) -> Split:
        splits = [self.train_split(segment) for segment in segments]
        return Split(images=torch.cat([s.images for s in splits]), labels=torch.cat([s.labels for s in splits]))

    def _split(self, task: int, num: int) -> Split:
        numbers = torch.arange(num)
        columns = [torch.full_like(numbers, task), numbers, numbers % 2 * 200, 90 * torch.ones_like(numbers)]
        return Split(images=torch.stack(columns, dim=1).to(torch.uint8), labels=2 * task + numbers % 2)


class Untold(Method):
    """One matrix [m, d]; fails if it is told a task. Records what it sees."""

    def __init__(self) -> None:
        self.seen: list[Batch] = []
        self.begun: list[int] = []
        self.ended: list[int] = []

    def start_shared(self) -> Tensors:
        return {
            "matrix": torch.full((NUM_CLASSES, 4), 0.01, dtype=torch.float64).requires_grad_(),
            "unused": torch.ones(2, dtype=torch.float64).requires_grad_(),
            "mean": torch.zeros(4, dtype=torch.float64),
        }

    def start_memory(self) -> Tensors:
        return {"steps": torch.zeros((), dtype=torch.int64), "anchor": torch.zeros(NUM_CLASSES, 4, dtype=torch.float64)}

    def start(self, tasks: Sequence[int]) -> Tensors:
        raise AssertionError(f"told the tasks {tasks}")

    def unpack(self, kept: Tensors, tasks: Sequence[int]) -> Tensors:
        raise AssertionError(f"told the tasks {tasks}")

    def prepare(self, task: int | None, images_Nd: torch.Tensor) -> torch.Tensor:
        assert task is None
        return images_Nd

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        assert set(state) == {"matrix", "unused", "mean", "steps", "anchor"}
        pixels = images.double() / 100
        if training and moved is not None:
            moved["mean"] = state["mean"] * 0.9 + pixels.mean(dim=(0, 1)) * 0.1
        return functional.linear(pixels, state["matrix"])

    def begin(self, state: Tensors, examples: Examples, rate: float) -> Tensors:
        self.begun.append(examples.num_examples)
        return {"matrix": state["matrix"] + 0.125 * rate}

    def learn(self, state: Tensors, batch: Batch) -> Step:
        assert batch.tasks is None
        self.seen.append(batch)
        step = super().learn(state, batch)
        return dataclasses.replace(step, moved=step.moved | {"steps": state["steps"] + 1})

    def end(self, state: Tensors, examples: Examples) -> Tensors:
        self.ended.append(sum(split.labels.numel() for split in examples.batches(4)))
        return {"anchor": state["matrix"].detach().clone()}


PLAIN = {"params_per_task": 24, "trained_per_task": 26, "stored_per_task": 0, "multiply_adds": 9, "activations": 9}


def make_engine(
    method: Method,
    benchmark: Groups,
    scenario: Scenario,
    *,
    presentation: str = "in turn",
    tests_ahead: bool = False,
    **training: object,
) -> Engine:
    settings = {"learning_rate": 0.05, "optimizer": "sgd", "batch_size": 3, "epochs_per_task": 2, "dtype": "float64"}
    blueprint = Blueprint(
        **PLAIN,
        backbone=BackboneSpec(seed=0, arrays=()),
        moves_shared="always",
        needs=frozenset(),
        presentation=presentation,
        stored_memory=25,
    )
    return Engine(
        method=method,
        curriculum=Curriculum(benchmark, scenario, tests_ahead=tests_ahead),
        blueprint=blueprint,
        training=TrainingSpec(**{**settings, **training}),
        seed=3,
        numerics=Numerics(device="cpu", group_size=1 if presentation == "in turn" else 3, kernel="plain", threads=1),
        identity=("trial", "fingerprint"),
    )


def learn(method: Method, benchmark: Groups, scenario: Scenario, **settings: object) -> Learned:
    *_, last = make_engine(method, benchmark, scenario, **settings).run()
    assert isinstance(last, Learned)
    return last


def places(rows: Sequence[TaskRow]) -> list[tuple[int, int, int | None]]:
    return [(row.task, row.tasks_learned, row.update) for row in rows]


@pytest.mark.parametrize("scenario", ["domain", "class", "general"])
def test_an_untold_task_is_told_nowhere(scenario: Scenario) -> None:
    """Not when it starts, is prepared, learned, tested or kept: the learner fails where it is told one."""
    every = {"epochs_per_task": 0} if scenario == "general" else {}
    learned = learn(Untold(), Groups(test_every=2), scenario, **every)
    assert learned.kept == ({}, {}, {})
    assert set(learned.shared) == {"matrix", "unused", "mean"}


@pytest.mark.parametrize("scenario", ["domain", "class", "general"])
def test_answers_are_counted_wherever_one_learner_answers_for_all(scenario: Scenario) -> None:
    """In `domain` too: each test says how often each of the outputs was the answer, and that adds up to its images."""
    every = {"epochs_per_task": 0} if scenario == "general" else {}
    learned = learn(Untold(), Groups(test_every=2), scenario, **every)
    assert all(len(row.answered) == NUM_CLASSES and sum(row.answered) == row.num_test for row in learned.rows)


def test_a_told_task_is_told() -> None:
    """The same learner, where tasks are told, does fail."""
    with pytest.raises(AssertionError, match=r"\(0,\)"):
        learn(Untold(), Groups(), "task")


def test_ends_are_told_where_the_scenario_tells_them() -> None:
    """A beginning and an end for each task, with its own examples; in a stream none."""
    for scenario in ("domain", "class"):
        method = Untold()
        learn(method, Groups(), scenario)
        assert method.begun == method.ended == [5, 7, 6]
    method = Untold()
    learn(method, Groups(test_every=2), "general", epochs_per_task=0)
    assert method.begun == method.ended == []


def test_classes_seen_are_those_that_can_be_answered() -> None:
    """The accuracy is among all classes seen so far, the masked one among the task's own; answers are counted."""
    method = Untold()
    learned = learn(method, Groups(), "class", epochs_per_task=6)
    assert places(learned.rows) == [(0, 1, None), (1, 2, None), (0, 2, None), (2, 3, None), (0, 3, None), (1, 3, None)]
    for row in learned.rows:
        assert sum(row.answered) == row.num_test == 8
        assert not any(row.answered[2 * row.tasks_learned :])
    split = Groups().test_split(1)
    scores = split.images.double() / 100 @ learned.shared["matrix"].T
    last = next(row for row in learned.rows if row.task == 1 and row.tasks_learned == 3)
    assert last.accuracy == (scores.argmax(dim=1) == split.labels).double().mean().item()
    assert last.accuracy_told == (2 + scores[:, 2:4].argmax(dim=1) == split.labels).double().mean().item()
    assert last.answered == tuple(torch.bincount(scores.argmax(dim=1), minlength=NUM_CLASSES).tolist())
    assert last.loss == pytest.approx(functional.cross_entropy(scores, split.labels).item())


def test_tasks_are_tested_ahead_where_that_is_asked_for() -> None:
    """All before anything is learned, then each just before it is; weights and all other tests are as without."""
    plain = learn(Untold(), Groups(), "domain")
    ahead = learn(Untold(), Groups(), "domain", tests_ahead=True)
    assert places(ahead.rows) == [
        *((task, 0, None) for task in range(3)),
        *[
            (0, 1, None),
            (1, 1, None),
            (1, 2, None),
            (0, 2, None),
            (2, 2, None),
            (2, 3, None),
            (0, 3, None),
            (1, 3, None),
        ],
    ]
    assert torch.equal(ahead.shared["matrix"], plain.shared["matrix"])
    learned_rows = [row for row in ahead.rows if row.task < row.tasks_learned]
    assert results(dataclasses.replace(ahead, rows=tuple(learned_rows))) == results(plain)
    together = learn(Untold(), Groups(), "domain", presentation="together", tests_ahead=True)
    assert places(together.rows) == [(task, 3, None) for task in range(3)]


def test_epochs_go_over_each_tasks_own_images() -> None:
    """Two epochs of 5, 7 and 6 images by three: 4, 6 and 4 updates, in orders of their own, numbered on."""
    method = Untold()
    learn(method, Groups(), "class")
    assert [(batch.segment, batch.step, batch.update) for batch in method.seen] == [
        *((0, step, step) for step in range(4)),
        *((1, step, 4 + step) for step in range(6)),
        *((2, step, 10 + step) for step in range(4)),
    ]
    shown = [batch.images[0, :, 1].tolist() for batch in method.seen if batch.segment == 1]
    for epoch in range(2):
        order = seeding.numpy_generator(3, "batches", 1, epoch).permutation(7).tolist()
        assert list(itertools.chain(*shown[3 * epoch : 3 * epoch + 3])) == order


def test_all_tasks_together_are_one_segment() -> None:
    """A learner of everything at once sees a mixture, is tested once on each task, and knows all classes."""
    method = Untold()
    learned = learn(method, Groups(), "class", presentation="together")
    assert places(learned.rows) == [(0, 3, None), (1, 3, None), (2, 3, None)]
    assert len(method.seen) == 12  # two epochs of 18 images by three
    assert method.begun == [18]
    first = list(itertools.chain(*(batch.images[0, :, 0].tolist() for batch in method.seen[:6])))
    assert sorted(first) == [0] * 5 + [1] * 7 + [2] * 6
    assert first != sorted(first)


def test_a_stream_is_seen_once_in_its_own_order() -> None:
    """18 images by three are six updates; every two of them, and at the end, all is tested.

    A segment counts as learned when its last image was seen: after 6 images one, after 12 two.
    """
    method, benchmark = Untold(), Groups(test_every=2)
    learned = learn(method, benchmark, "general", epochs_per_task=0)
    shown = [tuple(image[:2].tolist()) for batch in method.seen for image in batch.images[0]]
    assert shown == [(task, number) for task, size in enumerate(benchmark.sizes) for number in range(size)]
    assert places(learned.rows) == [
        (task, ended, update) for ended, update in ((1, 2), (2, 4), (3, 6)) for task in range(3)
    ]
    assert all(row.accuracy_told is None and sum(row.answered) == 8 for row in learned.rows)
    assert [bool(row.curve) for row in learned.rows] == [False] * 6 + [True, False, False]
    assert [row.train_seconds is not None for row in learned.rows] == [False] * 6 + [True] * 3


def test_a_stream_learned_together_is_shuffled() -> None:
    """Its upper bound: the same images in a random order, tested at the end alone."""
    method = Untold()
    learned = learn(method, Groups(test_every=2), "general", presentation="together", epochs_per_task=0)
    assert places(learned.rows) == [(task, 3, 6) for task in range(3)]
    shown = [image[0].item() for batch in method.seen for image in batch.images[0]]
    assert sorted(shown) == [0] * 5 + [1] * 7 + [2] * 6
    assert shown != sorted(shown)


def test_what_a_step_does_not_use_does_not_move() -> None:
    """With a gradient of zero, the optimiser's weight decay would move it."""
    learned = learn(Untold(), Groups(), "class", weight_decay=0.5)
    assert torch.equal(learned.shared["unused"], torch.ones(2, dtype=torch.float64))


def test_adjusted_gradients_are_what_the_optimiser_gets() -> None:
    """If `adjust` returns no gradients, no weight moves although the loss has some; what it notes is remembered."""

    class Stopped(Untold):
        def begin(self, state: Tensors, examples: Examples, rate: float) -> Tensors:
            return {}

        def adjust(self, state: Tensors, batch: Batch, gradients: Tensors) -> tuple[Tensors, Tensors]:
            assert set(gradients) == {"matrix"}
            assert bool(gradients["matrix"].any())
            return {"matrix": torch.zeros_like(gradients["matrix"])}, {"steps": state["steps"] + 100}

    learned = learn(Stopped(), Groups(), "class")
    assert torch.equal(learned.shared["matrix"], Stopped().start_shared()["matrix"].detach())


@pytest.fixture
def at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume point is due at once."""
    monkeypatch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
    monkeypatch.setattr(crwn.engine, "RESUME_COST_FACTOR", 0.0)


def results(learned: Learned) -> object:
    rows = [(*places([row]), row.accuracy, row.loss, row.answered, row.accuracy_told) for row in learned.rows]
    return rows, {name: tensor.tolist() for name, tensor in learned.shared.items()}


@pytest.mark.usefixtures("at_every_step")
@pytest.mark.parametrize(
    ("scenario", "settings"),
    [
        *itertools.product(["domain", "class"], [{}, {"presentation": "together"}]),
        *itertools.product(["general"], [{"epochs_per_task": 0}, {"epochs_per_task": 0, "presentation": "together"}]),
        ("domain", {"tests_ahead": True}),
    ],
)
def test_going_on_from_any_point_gives_the_same_results(scenario: Scenario, settings: dict[str, object]) -> None:
    """Weights, running statistics and memory are restored: the learner's loss depends on all of them."""

    class Remembering(Untold):
        def learn(self, state: Tensors, batch: Batch) -> Step:
            step = super().learn(state, batch)
            pull = (state["matrix"] - state["anchor"]).square().sum() * (1 + state["steps"])
            return dataclasses.replace(step, loss_G=step.loss_G + 1e-3 * pull + state["mean"].sum() * 1e-3 * pull)

    *events, expected = make_engine(Remembering(), Groups(test_every=2), scenario, **settings).run()
    points = [event.content for event in events if isinstance(event, ResumePoint)]
    assert len(points) >= 6
    for content in points:
        *_, learned = make_engine(Remembering(), Groups(test_every=2), scenario, **settings).run(content)
        assert results(learned) == results(expected)


@pytest.mark.usefixtures("at_every_step")
@pytest.mark.parametrize("hook", ["begin", "end"])
def test_a_kill_inside_a_hook_does_it_again_whole(hook: str) -> None:
    """What it did before the kill is discarded; the trial resumes to the same numbers."""

    class Killed(Untold):
        def _die(self) -> None:
            raise KeyboardInterrupt

        def begin(self, state: Tensors, examples: Examples, rate: float) -> Tensors:
            moved = super().begin(state, examples, rate)
            return self._die() if hook == "begin" and len(self.begun) == 2 else moved

        def end(self, state: Tensors, examples: Examples) -> Tensors:
            moved = super().end(state, examples)
            return self._die() if hook == "end" and len(self.ended) == 2 else moved

    expected = learn(Untold(), Groups(), "class")
    points: list[bytes] = []

    def run() -> None:
        for event in make_engine(Killed(), Groups(), "class").run():
            points.extend([event.content] if isinstance(event, ResumePoint) else [])

    with pytest.raises(KeyboardInterrupt):
        run()
    *_, learned = make_engine(Untold(), Groups(), "class").run(points[-1])
    assert results(learned) == results(expected)


def test_a_segment_that_was_learned_is_closed() -> None:
    """A learner that keeps hold of a batch or of a segment's examples cannot read them once the segment is over."""

    class Peeking(Untold):
        def learn(self, state: Tensors, batch: Batch) -> Step:
            if batch.segment == 1:
                self.read_again()
            return super().learn(state, batch)

        def end(self, state: Tensors, examples: Examples) -> Tensors:
            self.read_again: Callable[[], object] = lambda: examples.take(torch.tensor([0]))
            return super().end(state, examples)

        def prepare(self, task: int | None, images_Nd: torch.Tensor) -> torch.Tensor:
            return images_Nd.clone()  # so that the bytes are read through the gate

    with refused(GateError, "task-not-open", says=["[0]", "[1]"]):
        learn(Peeking(), Groups(), "class")


def test_a_buffer_gets_the_bytes() -> None:
    """Neither augmented nor prepared, whatever the learner makes of images; a view of them is both."""

    class Doubling(Untold):
        def prepare(self, task: int | None, images: torch.Tensor) -> torch.Tensor:
            return images.float() * 2

        def learn(self, state: Tensors, batch: Batch) -> Step:
            assert batch.originals.dtype == torch.uint8
            assert torch.equal(batch.originals[0].flatten(1).float().sum(1) * 2, batch.images[0].flatten(1).sum(1))
            again = batch.view(batch.originals[0], "again")
            assert torch.equal(again.flatten(1).sum(1), batch.images[0].flatten(1).sum(1))
            views.append((batch.originals[0], again, batch.images[0]))
            return super().learn(state, batch)

        def logits(self, state: Tensors, images: torch.Tensor, **how: object) -> torch.Tensor:
            return super().logits(state, images.flatten(2)[..., [0, 1, -2, -1]], **how)

    class Square(Groups):
        """Its images are 2 by 2, mirrored at random."""

        def __init__(self) -> None:
            super().__init__()
            self.augmentation = Augmentation(padding=0, flip=True)

        def _split(self, task: int, num: int) -> Split:
            split = super()._split(task, num)
            return Split(images=split.images.view(-1, 1, 2, 2), labels=split.labels)

    for benchmark in (Groups(), Square()):
        views: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        learn(Doubling(), benchmark, "class")
        differ = [not torch.equal(original.float() * 2, image) for original, _, image in views]
        assert any(differ) == isinstance(benchmark, Square)
        assert any(not torch.equal(again, image) for _, again, image in views) == isinstance(benchmark, Square)


def test_named_draws_are_those_of_the_update() -> None:
    """The same name and update give the same numbers, another name, update or seed others."""
    method = Untold()
    learn(method, Groups(), "class")
    first, second = method.seen[:2]
    assert torch.equal(first.uniform("slots", 5), first.uniform("slots", 5))
    expected = seeding.numpy_generator(3, "update", "slots", 1).random(5)
    assert torch.equal(second.uniform("slots", 5), torch.from_numpy(expected))
    assert not torch.equal(first.uniform("slots", 5), second.uniform("slots", 5))
    assert not torch.equal(first.uniform("slots", 5), first.uniform("keys", 5))
    with refused(InvalidError, "tasks-not-told", says="streams: "):
        first.streams("slots")


def test_the_default_loss_is_cross_entropy() -> None:
    """Of the batch's labels, one for each lane."""
    state = Untold().start_shared()
    images, labels = torch.rand(2, 3, 4, dtype=torch.float64), torch.tensor([[0, 1, 2], [3, 4, 5]])
    scores = functional.linear(images, state["matrix"])
    losses = cross_entropy(scores, labels)
    for lane in range(2):
        assert losses[lane].item() == pytest.approx(functional.cross_entropy(scores[lane], labels[lane]).item())
