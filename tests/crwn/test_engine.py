"""The training loop, with a small method and a small benchmark defined here.

Shapes: G tasks learned together, B examples a task, d numbers an image, m classes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

import crwn.engine
import crwn.evaluation
import crwn.groups
from crwn import seeding
from crwn.backbone import BackboneSpec
from crwn.benchmarks.protocol import Curriculum, Split
from crwn.engine import Engine
from crwn.events import (
    CurvePoint,
    GroupHalved,
    Learned,
    Numerics,
    Progress,
    ResumePoint,
    TaskRow,
)
from crwn.faults import InvalidError
from crwn.methods.protocol import Method, Tensors
from crwn.optimizers import OPTIMIZERS
from crwn.resume import read_numerics
from crwn.spec import Blueprint, TrainingSpec
from tests.refusals import refused

NUM_CLASSES = 3

pytestmark = pytest.mark.usefixtures("one_thread")


class EndToEnd:
    """Examples of several tasks laid end to end; image i begins with the byte i."""

    def __init__(self, splits: Sequence[Split]) -> None:
        self._images = torch.cat([split.images for split in splits])
        self._labels = torch.cat([split.labels for split in splits])
        self.num_examples = len(self._labels)
        self.device = self._labels.device
        self._images[:, 0] = torch.arange(self.num_examples)

    def take(self, index_B: torch.Tensor) -> Split:
        return Split(images=self._images[index_B], labels=self._labels[index_B])


class Numbered:
    """Image i of every task begins with the byte i; what follows and the labels differ between tasks."""

    def __init__(self, num_tasks: int = 3, num_train: int = 10, num_test: int = 7) -> None:
        self.num_tasks = self.num_segments = num_tasks
        self.test_every = 0
        self.augmentation = None
        self.num_train = num_train
        self.num_test = num_test
        self.reads: list[tuple[str, int]] = []

    def num_examples(self, segment: int) -> int:
        return self.num_train

    def classes(self, task: int) -> tuple[int, ...]:
        return tuple(range(NUM_CLASSES))

    def train_split(self, task: int) -> Split:
        self.reads.append(("train", task))
        return self._split(task, self.num_train)

    def test_split(self, task: int) -> Split:
        self.reads.append(("test", task))
        return self._split(task, self.num_test)

    def mixture(self, tasks: Sequence[int]) -> EndToEnd:
        self.reads += [("mixed", task) for task in tasks]
        return EndToEnd([self._split(task, self.num_train) for task in tasks])

    def _split(self, task: int, num: int) -> Split:
        numbers = torch.arange(num)
        images = torch.stack([numbers, numbers * (task + 3) % 11, torch.full_like(numbers, 5)], dim=1)
        return Split(images=images.to(torch.uint8), labels=numbers * (task + 1) % NUM_CLASSES)


class Softmax(Method):
    """Linear scores: per task a matrix [m, d], which starts at zero. Notes what it is asked for."""

    def __init__(self, on_logits: Callable[[], None] = lambda: None) -> None:
        self.groups: list[list[int]] = []
        self.seen: list[list[list[int]]] = []  # the images' numbers of each training step, a list a task
        self.test_sizes: list[int] = []
        self._on_logits = on_logits

    def start_shared(self) -> Tensors:
        return {}

    def start(self, tasks: Sequence[int]) -> Tensors:
        self.groups.append(list(tasks))
        return {"matrix": torch.zeros(len(tasks), NUM_CLASSES, 3, dtype=torch.float64, requires_grad=True)}

    def logits(self, state: Tensors, images_GBd: torch.Tensor, **how: object) -> torch.Tensor:
        self._on_logits()
        if torch.is_grad_enabled():
            self.seen.append(images_GBd[:, :, 0].int().tolist())
        else:
            self.test_sizes.append(images_GBd.shape[1])
        return torch.bmm(images_GBd.double() / 10, state["matrix"].transpose(1, 2))

    def pack(self, state: Tensors) -> Tensors:
        return state

    def unpack(self, kept: Tensors, tasks: Sequence[int]) -> Tensors:
        assert all(len(tensor) == len(tasks) for tensor in kept.values())
        return kept


class Sharing(Softmax):
    """A matrix [m, d] that all tasks share, and per task a factor for each input, which starts at one.

    Notes the shared matrix at each call, and whether it was trained then.
    """

    def __init__(self, on_logits: Callable[[], None] = lambda: None, *, first_rate: float = 0) -> None:
        super().__init__(on_logits)
        self.first_rate = first_rate
        self.drawn = torch.tensor([[0.3, -0.1, 0.2], [-0.2, 0.4, 0.1], [0.1, 0.2, -0.3]], dtype=torch.float64)
        self.matrices: list[tuple[torch.Tensor, bool]] = []

    def start_shared(self) -> Tensors:
        return {"matrix": self.drawn.detach().requires_grad_()}

    def rate(self, segment: int, rate: float) -> float:
        return self.first_rate if self.first_rate and segment == 0 else rate

    def start(self, tasks: Sequence[int]) -> Tensors:
        self.groups.append(list(tasks))
        return {"factor": torch.ones(len(tasks), 3, dtype=torch.float64, requires_grad=True)}

    def logits(self, state: Tensors, images_GBd: torch.Tensor, **how: object) -> torch.Tensor:
        self.matrices.append((state["matrix"].detach().clone(), state["matrix"].requires_grad))
        own_Gmd = state["matrix"] * state["factor"][:, None, :]
        return super().logits({"matrix": own_Gmd}, images_GBd)


class Alone(Sharing):
    """The shared matrix and nothing of a task's own."""

    def start(self, tasks: Sequence[int]) -> Tensors:
        self.groups.append(list(tasks))
        return {}

    def logits(self, state: Tensors, images_GBd: torch.Tensor, **how: object) -> torch.Tensor:
        return super().logits({**state, "factor": torch.ones(len(images_GBd), 3, dtype=torch.float64)}, images_GBd)


def blueprint(**changes: object) -> Blueprint:
    """Of a method whose tasks do not touch each other; the engine reads no counts."""
    settings = {"params_per_task": 9, "trained_per_task": 9, "stored_per_task": 9}
    sizes = {"multiply_adds": 9, "activations": 9, "backbone": BackboneSpec(seed=0, arrays=())}
    return Blueprint(**{**settings, **sizes, **changes})


IN_TURN = blueprint(moves_shared="always")
MIXED = blueprint(moves_shared="always", presentation="together")
FIRST_TASK = blueprint(moves_shared="first segment")


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def make_engine(
    method: Softmax,
    benchmark: Numbered,
    *,
    plan: Blueprint | None = None,
    group_size: int = 1,
    updates: int = 7,
    batch_size: int = 4,
    seed: int = 0,
    learning_rate: float = 0.1,
    optimizer: str = "rmsprop",
    weight_decay: float = 0.0,
    schedule: str = "constant",
    clock: Callable[[], float] | None = None,
) -> Engine:
    return Engine(
        method=method,
        curriculum=Curriculum(benchmark),
        blueprint=plan or blueprint(),
        training=TrainingSpec(
            learning_rate=learning_rate,
            optimizer=optimizer,
            updates_per_task=updates,
            batch_size=batch_size,
            dtype="float64",
            weight_decay=weight_decay,
            schedule=schedule,
        ),
        seed=seed,
        numerics=Numerics(device="cpu", group_size=group_size, kernel="plain", threads=1),
        identity=("trial", "fingerprint"),
        clock=clock or Clock(),
    )


def learn(method: Softmax, benchmark: Numbered, **settings: object) -> Learned:
    *_, last = make_engine(method, benchmark, **settings).run()
    assert isinstance(last, Learned)
    return last


def test_an_epoch_visits_every_example_once() -> None:
    """Ten examples by four are batches of 4, 4 and 2: the short last one is kept, and the next epoch starts afresh."""
    method = Softmax()
    learn(method, Numbered(num_tasks=1), updates=7)
    batches = [step[0] for step in method.seen]
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2, 4]
    assert sorted(itertools.chain(*batches[:3])) == list(range(10))
    assert sorted(itertools.chain(*batches[3:6])) == list(range(10))


def test_a_batch_may_be_the_whole_epoch() -> None:
    """Where the batch is as large as the data or larger, every update sees each example once."""
    for batch_size in (10, 64):
        method = Softmax()
        learn(method, Numbered(num_tasks=1), updates=3, batch_size=batch_size)
        assert [sorted(step[0]) for step in method.seen] == [list(range(10))] * 3


def test_the_order_is_drawn_from_seed_task_and_epoch() -> None:
    """Each epoch's order is the permutation of its stream, and all are different."""
    orders = {}
    for seed in (0, 1):
        method = Softmax()
        learn(method, Numbered(num_tasks=2), updates=6, seed=seed)
        for task in range(2):
            for epoch in range(2):
                first = 6 * task + 3 * epoch
                orders[seed, task, epoch] = list(itertools.chain(*(step[0] for step in method.seen[first : first + 3])))
    for (seed, task, epoch), order in orders.items():
        assert order == seeding.numpy_generator(seed, "batches", task, epoch).permutation(10).tolist()
    assert len({tuple(order) for order in orders.values()}) == 8


def test_a_task_sees_its_batches_in_any_group() -> None:
    """In a group of three, and in groups of two and one, a task's batches are those it sees alone."""
    alone = Softmax()
    learn(alone, Numbered(), updates=5)
    for group_size in (2, 3):
        method = Softmax()
        learn(method, Numbered(), updates=5, group_size=group_size)
        for index in range(3):
            group, place = divmod(index, group_size)
            steps = method.seen[5 * group : 5 * group + 5]
            assert [step[place] for step in steps] == [step[0] for step in alone.seen[5 * index : 5 * index + 5]]


@pytest.mark.parametrize(
    ("group_size", "groups"),
    [
        (1, [[0], [1], [2], [3], [4]]),
        (2, [[0, 1], [2, 3], [4]]),
        (5, [[0, 1, 2, 3, 4]]),
        (9, [[0, 1, 2, 3, 4]]),
    ],
)
def test_tasks_are_learned_in_groups_in_order(group_size: int, groups: list[list[int]]) -> None:
    """Groups of the size asked for, the last one shorter; every task once."""
    method = Softmax()
    learn(method, Numbered(num_tasks=5), updates=1, group_size=group_size)
    assert method.groups == groups


def test_data_are_read_task_by_task() -> None:
    """A group's training data once when it is learned, its test data after; at the end all but the last again."""
    benchmark = Numbered(num_tasks=3)
    learn(Softmax(), benchmark, group_size=2)
    first = [("train", 0), ("train", 1), ("test", 0), ("test", 1)]
    assert benchmark.reads == [*first, ("train", 2), ("test", 2), ("test", 0), ("test", 1)]


@pytest.mark.parametrize(
    ("group_size", "groups"),
    [(1, [[0], [1], [2], [3], [4]]), (2, [[0], [1, 2], [3, 4]]), (3, [[0], [1, 2, 3], [4]]), (9, [[0], [1, 2, 3, 4]])],
)
def test_a_first_task_that_trains_shared_weights_is_learned_alone(group_size: int, groups: list[list[int]]) -> None:
    """The tasks after it are learned in groups of the size asked for, from the second on."""
    method = Sharing()
    learn(method, Numbered(num_tasks=5), plan=FIRST_TASK, updates=1, group_size=group_size)
    assert method.groups == groups


@pytest.mark.parametrize("group_size", [1, 2])
@pytest.mark.parametrize("when", ["never", "first segment", "always"])
def test_shared_weights_are_trained_when_the_blueprint_says(when: str, group_size: int) -> None:
    """Never, with the first task alone, or with every task, each from where the last left them; never in a test.

    What the method drew stays as it is, since other trials may read it; trained weights are in the results.
    """
    group_size = 1 if when == "always" else group_size
    method, benchmark = Sharing(), Numbered()
    drawn = method.drawn.clone()
    plan = blueprint(moves_shared=when)
    learned = learn(method, benchmark, plan=plan, updates=2, group_size=group_size)
    trained = [requires_grad for _, requires_grad in method.matrices]
    matrices = [matrix for matrix, _ in method.matrices]
    changes = [not torch.equal(one, other) for one, other in itertools.pairwise(matrices)]
    assert torch.equal(method.drawn, drawn)
    match when:
        case "never":
            assert not any(trained)
            assert not any(changes)
            assert learned.shared == {}
        case "first segment":
            assert trained[:2] == [True, True]
            assert not any(trained[2:])
            assert changes[:2] == [True, True]
            assert not any(changes[2:])
        case "always":
            # two updates and a test of the first task; of the others two updates and a test of each learned so far
            in_turn = [True, True, False, True, True, False, False, True, True, False, False, False]
            assert trained == in_turn
            assert changes == in_turn[:-1]  # the weights differ after each update, and only then
    if when != "never":
        assert torch.equal(learned.shared["matrix"], matrices[-1])
        assert not learned.shared["matrix"].requires_grad
    assert all(set(kept) == {"factor"} for kept in learned.kept)


def test_the_first_task_may_have_a_rate_of_its_own() -> None:
    """RMSProp's first step is ten times the rate, g / sqrt(.01 g^2), whatever the gradient: so it shows the rate.

    The first task's moves the shared matrix too; later tasks are trained at the trial's rate.
    """
    method = Sharing(first_rate=0.001)
    learned = learn(method, Numbered(), plan=FIRST_TASK, updates=1, group_size=2, learning_rate=0.1)
    moved = (learned.shared["matrix"] - method.drawn).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 10 * 0.001), rtol=1e-3, atol=0)
    for task, rate in ((0, 0.001), (1, 0.1), (2, 0.1)):
        factor = learned.kept[task]["factor"][0]
        torch.testing.assert_close((factor - 1).abs(), torch.full((3,), 10 * rate).double(), rtol=1e-3, atol=0)


def rates_of(monkeypatch: pytest.MonkeyPatch, updates: int, schedule: str) -> list[float]:
    """The rates that a task of 12 examples is learned at, in batches of 5: 3 batches an epoch."""
    rates: list[float] = []

    class Noted:
        def __init__(self, trained: Tensors, weight_decay: float, momentum: float) -> None:
            assert (weight_decay, momentum) == (0.25, 0)
            self.state: Tensors = {}

        def step(self, gradients: Mapping[str, torch.Tensor], rate: float) -> None:
            rates.append(rate)

    monkeypatch.setitem(OPTIMIZERS, "adam", Noted)
    learn(
        Alone(),
        Numbered(num_tasks=1, num_train=12),
        plan=IN_TURN,
        updates=updates,
        batch_size=5,
        learning_rate=0.5,
        optimizer="adam",
        weight_decay=0.25,
        schedule=schedule,
    )
    return rates


@pytest.mark.parametrize("updates", [1, 3, 12, 14])
def test_the_rate_falls_as_torchs_cosine(monkeypatch: pytest.MonkeyPatch, updates: int) -> None:
    """A step after each epoch, the last one short where the updates end in it."""
    num_epochs = math.ceil(updates / 3)
    plain = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(plain, T_max=num_epochs)
    expected = []
    for _ in range(num_epochs):
        expected += [plain.param_groups[0]["lr"]] * 3
        plain.step()
        schedule.step()
    assert rates_of(monkeypatch, updates, "cosine") == pytest.approx(expected[:updates], rel=1e-12)


def test_a_constant_rate_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first update to the last."""
    assert rates_of(monkeypatch, 14, "constant") == [0.5] * 14


def test_each_task_has_a_new_optimizer() -> None:
    """With every task the shared matrix makes a first step of RMSProp, ten times the rate, in each of its numbers."""
    method = Alone()
    learn(method, Numbered(), plan=IN_TURN, updates=1, learning_rate=0.01)
    steps = [matrix for matrix, trained in method.matrices if trained] + [method.matrices[-1][0]]
    for before, after in itertools.pairwise(steps):
        torch.testing.assert_close((after - before).abs(), torch.full((3, 3), 0.1).double(), rtol=1e-3, atol=0)


def test_tasks_that_disturb_each_other_are_all_tested_after_each() -> None:
    """The lower triangle of the accuracy matrix, row by row; a task's own test comes first, with its training.

    The rows are those of the weights at that time: the last row again, and most earlier ones are others.
    """
    method, benchmark = Alone(), Numbered(num_tasks=4)
    learned = learn(method, benchmark, plan=IN_TURN)
    places = [(row.task, row.tasks_learned) for row in learned.rows]
    assert places == [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 3), (3, 4), (0, 4), (1, 4), (2, 4)]
    for row in learned.rows:
        is_first = row.task + 1 == row.tasks_learned
        assert (row.train_seconds is not None) == is_first
        assert bool(row.curve) == is_first
    assert len({row.loss for row in learned.rows if row.task == 0}) == 4
    assert benchmark.reads[:6] == [("train", 0), ("test", 0), ("train", 1), ("test", 1), ("test", 0), ("train", 2)]

    for row in learned.rows[6:]:
        split = Numbered().test_split(row.task)
        logits = split.images.double() / 10 @ learned.shared["matrix"].T
        assert row.loss == pytest.approx(functional.cross_entropy(logits, split.labels).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("plan", "group_size", "code", "expected"),
    [(IN_TURN, 2, "group-not-one", 1), (MIXED, 1, "group-not-all", 3), (MIXED, 4, "group-not-all", 3)],
)
def test_groups_that_a_method_cannot_learn_are_refused(
    plan: Blueprint, group_size: int, code: str, expected: int
) -> None:
    """Before anything is read or learned, with the reason."""
    benchmark = Numbered()
    with refused(InvalidError, code, says=["group_size: ", f"expected {expected}, given {group_size}"]):
        make_engine(Alone(), benchmark, plan=plan, group_size=group_size)
    assert not benchmark.reads


def test_mixed_tasks_share_every_batch() -> None:
    """Three tasks of ten examples by eight are batches of 8, 8, 8 and 6 of all of them in the order of one stream.

    As many updates as for the tasks one by one: 3 times 3, the last in the third epoch.
    """
    method, benchmark = Alone(), Numbered()
    learn(method, benchmark, plan=MIXED, group_size=3, updates=3, batch_size=8, seed=5)
    assert method.groups == []  # which tasks they are is not told
    assert all(len(step) == 1 for step in method.seen)
    batches = [step[0] for step in method.seen]
    assert [len(batch) for batch in batches] == [8, 8, 8, 6, 8, 8, 8, 6, 8]
    for epoch in range(2):
        shown = list(itertools.chain(*batches[4 * epoch : 4 * epoch + 4]))
        assert shown == seeding.numpy_generator(5, "batches", "mixed", epoch).permutation(30).tolist()
    assert benchmark.reads == [(kind, task) for kind in ("mixed", "test") for task in range(3)]


def test_mixed_tasks_have_one_curve_and_one_test_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has the curve; all are tested after all are learned, each with its share of the time."""
    monkeypatch.setattr(crwn.groups, "CURVE_EVERY", 4)
    clock = Clock()
    method = Alone(lambda: clock.pass_(2))
    learned = learn(method, Numbered(), plan=MIXED, group_size=3, updates=3, batch_size=8, clock=clock)
    assert [(row.task, row.tasks_learned) for row in learned.rows] == [(0, 3), (1, 3), (2, 3)]
    assert [[point.step for point in row.curve] for row in learned.rows] == [[4, 8, 9], [], []]
    assert [row.train_seconds for row in learned.rows] == [6, 6, 6]
    assert [row.eval_seconds for row in learned.rows] == [2, 2, 2]
    assert learned.kept == ({}, {}, {})


def test_progress_counts_the_updates_of_mixed_tasks() -> None:
    """From the first report on: no task is learned until all are, and their updates are those of all."""
    clock = Clock()
    engine = make_engine(
        Alone(lambda: clock.pass_(10)), Numbered(), plan=MIXED, group_size=3, updates=2, batch_size=8, clock=clock
    )
    reports = [event for event in engine.run() if isinstance(event, Progress)]
    assert [report.step for report in reports] == [*range(7), 0]
    assert [report.tasks_learned for report in reports] == [0] * 7 + [3]
    assert all(report.num_steps == 6 for report in reports)


def test_tasks_of_a_group_have_equally_many_examples() -> None:
    """Tasks of different sizes cannot share batches; the error names the sizes."""

    class Uneven(Numbered):
        def train_split(self, task: int) -> Split:
            return self._split(task, 10 + task)

    with refused(InvalidError, "sizes-differ", says="[10, 11]"):
        learn(Softmax(), Uneven(num_tasks=2), group_size=2)
    learn(Softmax(), Uneven(num_tasks=2), group_size=1)


def plain_training(task: int, updates: int, seed: int = 0) -> tuple[list[float], list[int], list[int], torch.Tensor]:
    """One task learned in a plain loop: each step's mean loss, number correct and number of examples; the matrix."""
    split = Numbered().train_split(task)
    matrix = torch.zeros(NUM_CLASSES, 3, dtype=torch.float64, requires_grad=True)
    squares = torch.zeros_like(matrix)
    losses, correct, sizes = [], [], []
    for step in range(updates):
        order = seeding.numpy_generator(seed, "batches", task, step // 3).permutation(10)
        chosen = order[step % 3 * 4 : step % 3 * 4 + 4]
        logits = split.images[chosen].double() / 10 @ matrix.T
        loss = functional.cross_entropy(logits, split.labels[chosen])
        (gradient,) = torch.autograd.grad(loss, matrix)
        squares = 0.99 * squares + 0.01 * gradient**2
        matrix = (matrix - 0.1 * gradient / (squares.sqrt() + 1e-8)).detach().requires_grad_()
        losses.append(loss.item())
        correct.append(int((logits.argmax(dim=1) == split.labels[chosen]).sum()))
        sizes.append(len(chosen))
    return losses, correct, sizes, matrix.detach()


@pytest.mark.parametrize("group_size", [1, 2, 3])
def test_learning_is_a_plain_loop(monkeypatch: pytest.MonkeyPatch, group_size: int) -> None:
    """Curves, tests and what is kept equal those of a loop over the batches of one task with RMSProp written out.

    With a point every 4 of 10 updates the curve has points at 4, 8 and 10. A point is the mean over the examples since
    the last one: batches of 4, 4, 2 and 4 count by their size.
    """
    monkeypatch.setattr(crwn.groups, "CURVE_EVERY", 4)
    learned = learn(Softmax(), Numbered(), updates=10, group_size=group_size)
    for task in range(3):
        losses, correct, sizes, matrix = plain_training(task, updates=10)
        row = learned.rows[task]
        assert [point.step for point in row.curve] == [4, 8, 10]
        for point, first in zip(row.curve, (0, 4, 8), strict=True):
            block = slice(first, point.step)
            num = sum(sizes[block])
            mean = sum(loss * size for loss, size in zip(losses[block], sizes[block], strict=True)) / num
            assert point.loss == pytest.approx(mean, rel=1e-12)
            assert point.accuracy == sum(correct[block]) / num
        torch.testing.assert_close(learned.kept[task]["matrix"][0], matrix, rtol=1e-10, atol=1e-12)

        split = Numbered().test_split(task)
        logits = split.images.double() / 10 @ matrix.T
        assert row.loss == pytest.approx(functional.cross_entropy(logits, split.labels).item(), rel=1e-10)
        assert row.accuracy == int((logits.argmax(dim=1) == split.labels).sum()) / 7


@pytest.mark.parametrize(("updates", "steps"), [(1, [1]), (50, [50]), (120, [50, 100, 120])])
def test_a_curve_has_a_point_every_fifty_updates(updates: int, steps: list[int]) -> None:
    """And one at the end of training, which is not written twice."""
    learned = learn(Softmax(), Numbered(num_tasks=1), updates=updates)
    assert [point.step for point in learned.rows[0].curve] == steps


def test_rows_are_the_diagonal_and_the_last_row() -> None:
    """Every task after it was learned, then all but the last after all of them; only the first have a training."""
    learned = learn(Softmax(), Numbered(num_tasks=3), group_size=2)
    places = [(row.task, row.tasks_learned) for row in learned.rows]
    assert places == [(0, 1), (1, 2), (2, 3), (0, 3), (1, 3)]
    for row in learned.rows:
        is_first = row.task + 1 == row.tasks_learned
        assert (row.train_seconds is not None) == is_first
        assert bool(row.curve) == is_first
        assert row.num_test == 7
    assert [task["matrix"].shape for task in learned.kept] == [(1, NUM_CLASSES, 3)] * 3


def test_a_benchmark_may_have_one_task() -> None:
    """Its diagonal is its last row."""
    learned = learn(Softmax(), Numbered(num_tasks=1))
    assert [(row.task, row.tasks_learned) for row in learned.rows] == [(0, 1)]


def test_tests_go_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven test images by three are 3, 3 and 1; loss and accuracy are those of all at once."""
    whole = learn(Softmax(), Numbered(num_tasks=1))
    monkeypatch.setattr(crwn.evaluation, "EVALUATION_BATCH", 3)
    method = Softmax()
    batched = learn(method, Numbered(num_tasks=1))
    assert method.test_sizes == [3, 3, 1]
    assert batched.rows[0].accuracy == whole.rows[0].accuracy
    assert batched.rows[0].loss == pytest.approx(whole.rows[0].loss, rel=1e-12)


def test_seconds_are_those_of_learning_and_testing() -> None:
    """With a clock on which every forward pass takes 2 s: 7 updates are 14 s, shared by the tasks of a group.

    A test of one batch takes 2 s. What the driver does with an event is nobody's training.
    """
    clock = Clock()
    engine = make_engine(Softmax(lambda: clock.pass_(2)), Numbered(), group_size=2, clock=clock)
    events = []
    for event in engine.run():
        events.append(event)
        clock.pass_(100)
    rows = events[-1].rows
    assert [row.train_seconds for row in rows] == [7, 7, 14, None, None]
    assert [row.eval_seconds for row in rows] == [2] * 5


def test_points_and_tests_tell_when_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of the world, on which every forward pass takes 1 s from second 1000 on.

    Two tasks are learned together in 7 updates, with points at 4 and 7, then tested one after the other; so is the
    third, and the first two are tested again.
    """
    wall = Clock()
    monkeypatch.setattr(crwn.groups, "time", SimpleNamespace(time=wall))
    monkeypatch.setattr(crwn.evaluation, "time", SimpleNamespace(time=wall))
    monkeypatch.setattr(crwn.groups, "CURVE_EVERY", 4)
    learned = learn(Softmax(lambda: wall.pass_(1)), Numbered(), group_size=2)
    assert [[point.time for point in row.curve] for row in learned.rows] == [
        [1004, 1007],
        [1004, 1007],
        [1013, 1016],
        [],
        [],
    ]
    assert [row.tested for row in learned.rows] == [1008, 1009, 1017, 1018, 1019]


def test_equal_points_of_other_times_are_equal() -> None:
    """Curves of equal trials are equal; whatever else differs, differs."""
    point = CurvePoint(step=4, loss=0.5, accuracy=0.75, time=1.0)
    assert point == dataclasses.replace(point, time=2.0)
    for name in ("step", "loss", "accuracy"):
        assert point != dataclasses.replace(point, **{name: 0})


def test_a_rate_far_too_high_is_an_error() -> None:
    """Training that diverges stops at the next point of the curve, with the task, the loss and what to do."""

    class Exploding(Softmax):
        def logits(self, state: Tensors, images_GBd: torch.Tensor, **how: object) -> torch.Tensor:
            logits = super().logits(state, images_GBd)
            is_second = self.groups[-1][0] == 1
            return logits * (math.inf if is_second and torch.is_grad_enabled() else 1)

    with pytest.raises(FloatingPointError, match=r"^task 1: .*nan.* 7 .*0\.1\.$"):
        learn(Exploding(), Numbered())


def test_the_rate_to_lower_is_the_one_that_was_used() -> None:
    """Of a first task with a rate of its own that one, later the training's."""

    class Exploding(Sharing):
        def __init__(self, task: int) -> None:
            super().__init__(first_rate=0.001)
            self._task = task

        def logits(self, state: Tensors, images_GBd: torch.Tensor, **how: object) -> torch.Tensor:
            return super().logits(state, images_GBd) * (math.inf if self._task in self.groups[-1] else 1)

    for task, rate in ((0, 0.001), (1, 0.1)):
        with pytest.raises(FloatingPointError, match=f"^task {task}: .* given {rate}.$"):
            learn(Exploding(task), Numbered(), plan=FIRST_TASK)


def events_of(engine: Engine, clock: Clock, cost: float) -> Iterator[tuple[float, float, object]]:
    """Every event with the seconds when it came and when the driver was done with it; resume points cost seconds."""
    for event in engine.run():
        came = clock.now
        clock.pass_(cost if isinstance(event, ResumePoint) else 0)
        yield came, clock.now, event


@pytest.mark.parametrize(
    ("cost", "expected"), [(0.0, 2.0), (0.01, 2.0), (0.05, 5.0), (0.5, 50.0), (1.0, 60.0), (30.0, 60.0), (500.0, 60.0)]
)
def test_resume_points_cost_a_hundredth_and_come_within_a_minute(cost: float, expected: float) -> None:
    """A step takes a second. The next point is due after 100 times what the last took, but within 2 to 60 seconds.

    It comes at the first step from then on, so that at most a minute and a step are ever lost.
    """
    clock = Clock()
    method = Softmax(lambda: clock.pass_(1) if torch.is_grad_enabled() else None)
    engine = make_engine(method, Numbered(num_tasks=1), updates=400, clock=clock)
    begun = clock.now
    points = [item[:2] for item in events_of(engine, clock, cost) if isinstance(item[2], ResumePoint)]
    assert points[0][0] - begun == 2
    waits = [next_came - done for (_, done), (next_came, _) in itertools.pairwise(points)]
    assert len(waits) >= 5
    assert all(expected <= wait < expected + 1 for wait in waits)


def test_a_step_longer_than_a_minute_is_followed_by_a_resume_point() -> None:
    """Where one update takes 90 s, there is a point after each."""
    clock = Clock()
    method = Softmax(lambda: clock.pass_(90) if torch.is_grad_enabled() else None)
    events = list(make_engine(method, Numbered(num_tasks=1), updates=4, clock=clock).run())
    assert sum(isinstance(event, ResumePoint) for event in events) == 4


def test_progress_is_reported_twice_a_second() -> None:
    """At the beginning; then, with steps of 0.2 s, after the first step and at each that is half a second later."""
    clock = Clock()
    method = Softmax(lambda: clock.pass_(0.2) if torch.is_grad_enabled() else None)
    engine = make_engine(method, Numbered(num_tasks=1), updates=10, clock=clock)
    assert [event.step for event in engine.run() if isinstance(event, Progress)] == [0, 1, 4, 7, 10]


def test_progress_says_where_the_trial_is() -> None:
    """Tasks learned and tested, the step of the group that is learned, and the mean accuracy so far.

    First of all where the trial goes on from; here then after each update, each group and each of the two final tests.
    """
    clock = Clock()
    engine = make_engine(Softmax(lambda: clock.pass_(10)), Numbered(), updates=2, group_size=2, clock=clock)
    *events, learned = engine.run()
    pair, all_three = (sum(row.accuracy for row in learned.rows[:num]) / num for num in (2, 3))
    reports = [event for event in events if isinstance(event, Progress)]
    assert reports[0] == events[0] == Progress(tasks_learned=0, num_tasks=3, step=0, num_steps=2, accuracy=None)
    assert [(report.tasks_learned, report.step, report.accuracy) for report in reports] == [
        (0, 0, None),
        (0, 1, None),
        (0, 2, None),
        (2, 0, pytest.approx(pair)),
        (2, 1, pytest.approx(pair)),
        (2, 2, pytest.approx(pair)),
        (3, 0, pytest.approx(all_three)),
        (3, 0, pytest.approx(all_three)),
        (3, 0, pytest.approx(all_three)),
    ]
    assert all(report.num_steps == 2 and report.num_tasks == 3 for report in reports)


def test_an_engine_keeps_copies() -> None:
    """What is kept of a task holds its own numbers, not a view into a group's."""
    learned = learn(Softmax(), Numbered(), group_size=3)
    storages = {task["matrix"].untyped_storage().data_ptr() for task in learned.kept}
    assert len(storages) == 3
    assert all(not task["matrix"].requires_grad for task in learned.kept)
    assert isinstance(learned.rows[0], TaskRow)


def test_a_resume_point_tells_what_was_learned_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are the first of the final ones, its curves the beginnings of those of the group that is learned.

    Here there is one after each update, each group and each final test, and a point of the curve after two updates.
    What it tells stays as it is while the trial goes on, times included.
    """
    clock = Clock()
    monkeypatch.setattr(crwn.groups, "CURVE_EVERY", 2)
    engine = make_engine(Softmax(lambda: clock.pass_(100)), Numbered(), updates=3, group_size=2, clock=clock)
    *events, learned = engine.run()
    assert isinstance(learned, Learned)
    points = [event for event in events if isinstance(event, ResumePoint)]
    told = [(len(point.rows), {task: len(curve) for task, curve in point.curves.items()}) for point in points]
    assert told == [
        (0, {0: 0, 1: 0}),
        (0, {0: 1, 1: 1}),
        (0, {0: 2, 1: 2}),
        (2, {}),
        (2, {2: 0}),
        (2, {2: 1}),
        (2, {2: 2}),
        (3, {}),
        (4, {}),
        (5, {}),
    ]
    for point in points:
        assert point.rows == learned.rows[: len(point.rows)]
        for task, curve in point.curves.items():
            final = learned.rows[task].curve[: len(curve)]
            assert [dataclasses.astuple(made) for made in curve] == [dataclasses.astuple(made) for made in final]


# Memory


class Limited(Softmax):
    """A method with memory for only so many tasks in training, and for fewer from some update on."""

    def __init__(self, limits: Sequence[int], error: BaseException) -> None:
        super().__init__()
        self._limits = limits
        self._error = error
        self.sizes: list[int] = []

    def logits(self, state: Tensors, images_GBd: torch.Tensor, **how: object) -> torch.Tensor:
        if how.get("training"):
            self.sizes.append(len(images_GBd))
            if len(images_GBd) > self._limits[min(len(self.sizes), len(self._limits)) - 1]:
                raise self._error
        return super().logits(state, images_GBd, **how)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    MemoryError("Unable to allocate 9 GiB"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_group_that_does_not_fit_is_halved(error: BaseException) -> None:
    """From the start and in the middle of a task: no update is done again; the results are those of small groups."""
    benchmark = Numbered(num_tasks=5)
    expected = learn(Softmax(), benchmark, group_size=1)
    for limits, sizes in (
        ([1], [4, 2, 1]),  # never more than one
        ([4, 4, 4, 2], [4, 2]),  # four for three updates
        ([4, 4, 4, 2, 2, 1], [4, 2, 1]),
    ):
        method = Limited(limits, error)
        engine = make_engine(method, benchmark, group_size=4)
        events = list(engine.run())
        learned = events[-1]
        assert isinstance(learned, Learned)
        halved = [event.group_size for event in events if isinstance(event, GroupHalved)]
        assert [4, *halved] == sizes
        assert engine.numerics.group_size == sizes[-1]
        assert sum(method.sizes) == 5 * 7 + sum(sizes[:-1])  # each task's updates, and those that did not fit
        for row, wanted in zip(learned.rows, expected.rows, strict=True):
            assert (row.task, row.accuracy) == (wanted.task, wanted.accuracy)
            assert row.loss == pytest.approx(wanted.loss, rel=1e-12)
            assert [(point.step, point.accuracy) for point in row.curve] == [
                (point.step, point.accuracy) for point in wanted.curve
            ]


def test_halves_that_wait_are_in_the_resume_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that is killed after a group was split resumes with both halves, from any point, to the same bits."""
    monkeypatch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
    monkeypatch.setattr(crwn.engine, "RESUME_COST_FACTOR", 0.0)
    benchmark = Numbered(num_tasks=4)
    events = list(make_engine(Limited([4, 4, 2], OUT_OF_MEMORY[0]), benchmark, group_size=4).run())
    expected = events[-1]
    assert isinstance(expected, Learned)
    points = [event.content for event in events if isinstance(event, ResumePoint)]
    assert len(points) > 10
    after = next(index for index, event in enumerate(events) if isinstance(event, GroupHalved))
    for content in [event.content for event in events[after:] if isinstance(event, ResumePoint)]:
        size = read_numerics(content).group_size
        assert size == 2
        *_, learned = make_engine(Softmax(), benchmark, group_size=size).run(content)
        assert isinstance(learned, Learned)
        assert [(row.task, row.accuracy, row.loss) for row in learned.rows] == [
            (row.task, row.accuracy, row.loss) for row in expected.rows
        ]


class Counting(Limited):
    """Counts its forward passes in a tensor of each task that moves, and runs out of memory after that."""

    def start(self, tasks: Sequence[int]) -> Tensors:
        return {**super().start(tasks), "passes": torch.zeros(len(tasks), 1, dtype=torch.float64)}

    def logits(self, state: Tensors, images_GBd: torch.Tensor, **how: object) -> torch.Tensor:
        if how.get("training"):
            how["moved"]["passes"] = state["passes"] + 1
        return super().logits(state, images_GBd, **how)


def test_a_step_that_did_not_fit_moves_no_statistic() -> None:
    """Memory runs out after the forward pass has moved them: the step is done again, and they are moved once for it."""
    learned = learn(Counting([4, 4, 2, 2, 1], OUT_OF_MEMORY[0]), Numbered(num_tasks=4), group_size=4)
    assert [kept["passes"].item() for kept in learned.kept] == [7.0] * 4


@pytest.mark.parametrize("group_size", [1, 3])
def test_one_task_that_does_not_fit_fails(group_size: int) -> None:
    """There is nothing to split: the allocator's message is the trial's error."""
    with pytest.raises(torch.OutOfMemoryError, match=r"2\.00 GiB"):
        learn(Limited([0], OUT_OF_MEMORY[0]), Numbered(), group_size=group_size)


def test_other_errors_are_not_taken_for_it() -> None:
    """Other errors are raised unchanged, at once."""
    method = Limited([1], RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        learn(method, Numbered(), group_size=3)
    assert method.sizes == [3]
