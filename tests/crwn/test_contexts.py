"""The context bank: what is kept of every learned task."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

import crwn.engine
from crwn import backbone, context_files, contexts, tensorfile
from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.sequential import SequentialSpec
from crwn.data import Datasets
from crwn.events import Numerics, ResumePoint
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.methods.protocol import Method
from crwn.trial import Event, Finished, run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.methods.building import plain_surroundings
from tests.methods import CASES
from tests.refusals import refused

SHAPES = {
    "neuromodnet": {
        "layer1.context": (3, 64),
        "layer1.strength": (3,),
        "layer2.context": (3, 9),
        "layer2.strength": (3,),
        "layer3.context": (3, 9),
        "layer3.strength": (3,),
    },
    "flynet": {"decoder.context": (3, 128), "decoder.strength": (3,)},
    # ceil(9 * 64 / 8), ceil(9 * 9 / 8), ceil(10 * 9 / 8) bytes
    "supsup": {"layer1.mask": (3, 72), "layer2.mask": (3, 11), "layer3.mask": (3, 12)},
    "batche": {
        "layer1.r": (3, 9),
        "layer1.s": (3, 64),
        "layer2.r": (3, 9),
        "layer2.s": (3, 9),
        "layer3.r": (3, 10),
        "layer3.s": (3, 9),
    },
}

WEIGHTS = {"layer1.weight": (9, 64), "layer2.weight": (9, 9), "layer3.weight": (10, 9)}


def trial(name: str) -> TrialSpec:
    """Layers of FC9 have a number of weights that is no multiple of eight."""
    case = CASES[name]
    return case.trial(scale="FC9" if case.scale.startswith("FC") else case.scale)


def num_tasks_of(name: str) -> int:
    return trial(name).benchmark.problem().num_tasks


def method_of(name: str) -> Method:
    spec = trial(name)
    arrays = backbone.draw(spec.blueprint().backbone).arrays
    surroundings = plain_surroundings(
        spec.scale,
        spec.benchmark.problem(),
        backbone=arrays,
        seed=spec.seed,
        normalisation=spec.benchmark.normalisation(),
    )
    return METHODS[spec.method.kind].build(spec.method, surroundings)


def run(name: str, data: Datasets, group_size: int = 1) -> tuple[Finished, list[Event]]:
    """Run a trial and keep its weights; some methods fix the group size."""
    events: list[Event] = []
    group_size = {"one": 1, "any": group_size, "all": num_tasks_of(name)}[trial(name).blueprint().grouping]
    finished = run_trial(
        trial(name),
        data=data,
        backbones=backbone.draw,
        on_event=events.append,
        numerics=Numerics(device="cpu", group_size=group_size, kernel="plain", threads=1),
        keep_weights=True,
    )
    return finished, events


def test_what_was_dumped_is_loaded() -> None:
    """Tasks are stacked along the first axis; shared weights have names of their own.

    The header says what they belong to.
    """
    kept = [
        {"x": torch.tensor([[1.0, 2.0]]), "a": torch.tensor([3.0])},
        {"x": torch.tensor([[4.0, 5.0]]), "a": torch.tensor([6.0])},
    ]
    spec = trial("flynet")
    shared = {"w": torch.tensor([[7.0]])}
    content = context_files.parse(contexts.dump(kept, shared, spec, "f" * 64))
    assert content.tensors["x"].tolist() == [[1, 2], [4, 5]]
    assert content.tensors["a"].tolist() == [3, 6]
    assert content.tensors["shared.w"].tolist() == [[7]]
    assert content.specs == {spec.trial_id: json.loads(spec.canonical_json())}
    assert content.fingerprint == "f" * 64
    assert content.starts == ()
    told = context_files.parse(contexts.dump(kept, shared, spec, "f", starts=["own", "task 0", "own"]))
    assert told.starts == ("own", "task 0", "own")


def test_equal_content_gives_equal_bytes() -> None:
    """Two runs can be compared by their bytes."""
    kept = [{"x": torch.ones(1, 2)}]
    assert contexts.dump(kept, {}, trial("flynet"), "f") == contexts.dump(kept, {}, trial("flynet"), "f")
    assert contexts.dump(kept, {}, trial("flynet"), "f") != contexts.dump(kept, {}, trial("flynet"), "e")
    assert contexts.dump(kept, {}, trial("flynet"), "f") != contexts.dump(kept, kept[0], trial("flynet"), "f")


@pytest.mark.parametrize("kept", [(), ({}, {}, {})], ids=["left out", "nothing of a task's own"])
def test_a_bank_may_be_empty(kept: tuple[dict[str, torch.Tensor], ...]) -> None:
    """A trial may keep nothing but its id and spec."""
    bank = contexts.load(contexts.dump(kept, {}, trial("mtl"), "f"))
    assert bank.tensors == {}
    assert bank.trial_id == trial("mtl").trial_id
    with_weights = contexts.dump(kept, {"w": torch.ones(1)}, trial("mtl"), "f")
    assert set(context_files.parse(with_weights).tensors) == {"shared.w"}


@pytest.mark.parametrize("name", SHAPES)
def test_every_tensor_has_the_task_axis_first(name: str, digits: Datasets) -> None:
    """[T, ...] for every name, as the method keeps it: contexts, strengths, packed masks, rank-one factors."""
    finished = run_trial(trial(name), data=digits, backbones=backbone.draw)
    bank = contexts.load(finished.contexts)
    assert {key: tuple(tensor.shape) for key, tensor in bank.tensors.items()} == SHAPES[name]
    dtype = torch.uint8 if name == "supsup" else torch.float32
    assert all(tensor.dtype == dtype for tensor in bank.tensors.values())
    assert bank.spec == json.loads(trial(name).canonical_json())
    assert bank.fingerprint == backbone.draw(trial(name).blueprint().backbone).fingerprint


@pytest.mark.parametrize("name", CASES)
def test_weights_are_there_on_request(name: str, digits: Datasets) -> None:
    """Each task's tensors [T, ...], including its own weights; and shared weights, without a task axis."""
    method, num_tasks = method_of(name), num_tasks_of(name)
    start = {key: tensor.detach() for key, tensor in method.start(range(num_tasks)).items()}
    own, shared = method.pack(start), method.start_shared()
    expected = {key: tuple(tensor.shape) for key, tensor in own.items()}
    assert all(shape[0] == num_tasks for shape in expected.values())
    expected |= {f"shared.{key}": tuple(tensor.shape) for key, tensor in shared.items()}
    finished, _ = run(name, digits)
    found = {key: tuple(tensor.shape) for key, tensor in contexts.load(finished.contexts).tensors.items()}
    assert found == expected
    weights = {key: shape[-2:] for key, shape in found.items() if key.endswith(".weight")}
    if name in ("batche", "psp", "mtl", "neuromodnet-pretrained"):
        assert weights == {f"shared.{key}": shape for key, shape in WEIGHTS.items()}
    if name == "stl":
        assert weights == WEIGHTS


def learned_states(events: list[Event], num_updates: int) -> list[dict[str, torch.Tensor]]:
    """The state of each group after its last update, from the resume points."""
    states = []
    for event in events:
        if isinstance(event, ResumePoint):
            tensors, header = tensorfile.parse(event.content)
            if header["groups"] and header["groups"][0]["step"] == num_updates:
                prefix = "0.state."
                states.append({key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)})
    return states


@pytest.mark.parametrize("group_size", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_the_bank_holds_what_was_learned(
    name: str, digits: Datasets, monkeypatch: pytest.MonkeyPatch, group_size: int
) -> None:
    """Contexts, factors and weights as after the last update; masks, bit by bit, where scores are at least zero.

    Shared weights are those after the last task that trained them.
    """
    monkeypatch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
    monkeypatch.setattr(crwn.engine, "RESUME_COST_FACTOR", 0.0)
    finished, events = run(name, digits, group_size)
    mixed = trial(name).blueprint().grouping == "all"
    states = learned_states(events, num_updates=4 * num_tasks_of(name) if mixed else 4)
    bank = contexts.load(finished.contexts).tensors
    shared = {key for key in states[0] if f"shared.{key}" in bank}
    for key in shared:
        assert torch.equal(bank[f"shared.{key}"], [state[key] for state in states if key in state][-1])
    for key in set(states[0]) - shared:
        learned = torch.cat([state[key] for state in states])
        if name == "supsup":
            packed = bank[key.replace(".scores", ".mask")].numpy()
            for task in range(num_tasks_of(name)):
                scores = learned[task].flatten().tolist()
                bits = [packed[task, place // 8] >> (place % 8) & 1 for place in range(len(scores))]
                assert bits == [int(score >= 0) for score in scores]
                padding = np.unpackbits(packed[task], bitorder="little")[len(scores) :]
                assert not padding.any()
        else:
            assert torch.equal(bank[key], learned)


def told(bank: contexts.ContextBank, task: int) -> int | None:
    """What `predict` is told of a task."""
    return task if bank.needs_task else None


@pytest.mark.parametrize("name", CASES)
def test_a_bank_gives_the_accuracies_that_were_reported(name: str, digits: Datasets) -> None:
    """The file alone reproduces the last row of the trial's accuracy matrix."""
    spec, cpu = trial(name), torch.device("cpu")
    finished, _ = run(name, digits)
    bank = contexts.load(finished.contexts)
    entry = BENCHMARKS[spec.benchmark.kind]
    tasks = entry.build(spec.benchmark, digits.load("digits"), spec.seed, cpu)
    accuracies = {row.task: row.accuracy for row in finished.rows if row.tasks_learned == bank.num_tasks}
    assert len(accuracies) == num_tasks_of(name)
    for task, accuracy in accuracies.items():
        split = tasks.test_split(task)
        logits = bank.predict(split.images, task=told(bank, task))
        assert logits.dtype == torch.float32
        assert (logits.argmax(dim=1) == split.labels).double().mean().item() == pytest.approx(accuracy, abs=1e-12)


def test_the_task_is_an_argument(digits: Datasets) -> None:
    """Predictions depend on the given task, and not on earlier calls."""
    bank = contexts.load(run("neuromodnet", digits)[0].contexts)
    images = digits.load("digits").test.images[:7]
    first, other, again = (bank.predict(images, task=task) for task in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_may_come_in_several_forms(digits: Datasets) -> None:
    """With channels, as rows of pixels, as grey images; from NumPy and torch; in several batches, one image or none."""
    bank = contexts.load(run("flynet", digits)[0].contexts)
    images = digits.load("digits").test.images[:6]
    expected = bank.predict(images, task=2)
    assert expected.shape == (6, 10)
    for given in (images[:, 0], images.reshape(6, -1), torch.from_numpy(images), images[::-1][::-1]):
        assert torch.equal(bank.predict(given, task=np.int64(2)), expected)
    assert torch.allclose(bank.predict(images[:1], task=2), expected[:1])
    assert bank.predict(images[:0], task=2).shape == (0, 10)
    many = np.repeat(images, 100, axis=0)
    assert torch.allclose(bank.predict(many, task=2), expected.repeat_interleave(100, dim=0), atol=1e-6)


def test_classes_that_were_not_learned_are_no_answer(digits: Datasets) -> None:
    """A truncated sequence has outputs for all classes, but predicts only those of its tasks."""
    spec = CASES["er"].trial(benchmark=SequentialSpec(base="digits", order="drawn", first=2), scale="FC9")
    finished = run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=True)
    bank = contexts.load(finished.contexts)
    learned = [label for group in SequentialSpec(base="digits", order="drawn", first=2).classes(0) for label in group]
    scores = bank.predict(digits.load("digits").test.images)
    assert sorted(learned) == torch.isfinite(scores).all(dim=0).nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("name", "task", "code"),
    [
        ("neuromodnet", None, "unknown-task"),
        ("neuromodnet", 3, "unknown-task"),
        ("neuromodnet", -1, "unknown-task"),
        ("neuromodnet", True, "unknown-task"),
        ("neuromodnet", "first", "unknown-task"),
        ("mtl", 1, "task-not-told"),
        ("finetune-class", 0, "task-not-told"),
    ],
)
def test_a_task_that_is_none_is_refused(name: str, task: int | None, code: str, digits: Datasets) -> None:
    """If the method needs the task, it must be one of the trial's; otherwise, none may be given."""
    bank = contexts.load(run(name, digits)[0].contexts)
    with refused(InvalidError, code, says=f"given {task!r}"):
        bank.predict(digits.load("digits").test.images[:2], task=task)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8)),
        np.zeros((2, 64), dtype=np.float32),
        np.zeros((8, 8), dtype=np.uint8),
        np.zeros((2, 3, 8, 8), dtype=np.uint8),
        np.zeros((2, 784), dtype=np.uint8),
        np.uint8(0),
        torch.zeros(2, 64),
        [[0] * 64],
        ["image"],
        None,
    ],
)
def test_images_of_another_kind_are_refused(images: object, digits: Datasets) -> None:
    """Floats, another size, no batch axis: the message says what is expected."""
    bank = contexts.load(run("flynet", digits)[0].contexts)
    with refused(InvalidError, "not-the-tasks-images", says=["uint8", "[B, 1, 8, 8] or [B, 64] or [B, 8, 8], given"]):
        bank.predict(images, task=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["stl", "batche", "psp", "mtl", "neuromodnet-pretrained", "er"])
def test_without_weights_that_were_trained_nothing_is_predicted(name: str, digits: Datasets) -> None:
    """The message says how to keep them."""
    bank = contexts.load(run_trial(trial(name), data=digits, backbones=backbone.draw).contexts)
    with refused(contexts.WeightsError, "weights-not-kept", says=["keep_weights: true", "keep_weights=True"]):
        bank.predict(digits.load("digits").test.images[:2], task=told(bank, 0))


def test_a_bank_that_does_not_fit_its_trial_is_refused(digits: Datasets) -> None:
    """Other frozen weights, another trial's or an invalid spec, missing, truncated or extra tensors."""
    images, whole = digits.load("digits").test.images[:2], contexts.load(run("flynet", digits)[0].contexts)
    name, trial_id = "decoder.context", whole.trial_id
    for changes, code, says in (
        ({"fingerprint": "f" * 64}, "other-backbone", "f" * 64),
        ({"specs": {"0" * 16: whole.spec}}, "another-trial", "0" * 16),
        ({"specs": {trial_id: {**whole.spec, "seed": 1}}}, "another-trial", trial_id),
        ({"specs": {trial_id: {}}}, "missing-key", "method: "),
        ({"tensors": {name: whole.tensors[name]}}, "tensors-do-not-fit", "decoder.strength [3] float32, given none"),
        (
            {"tensors": {key: tensor[:2] for key, tensor in whole.tensors.items()}},
            "tensors-do-not-fit",
            "decoder.context [3, 128] float32, given [2, 128] float32",
        ),
        (
            {"tensors": {**whole.tensors, "more": whole.tensors[name]}},
            "tensors-do-not-fit",
            "more none, given [3, 128]",
        ),
    ):
        with refused(InvalidError, code, says=says):
            dataclasses.replace(whole, **changes).predict(images, task=0)  # type: ignore[arg-type]


def test_a_backbone_that_no_memory_holds_is_not_drawn() -> None:
    """A small file can name a network of terabytes."""
    spec = CASES["neuromodnet"].trial(scale="FC999999")
    content = contexts.dump([{"x": torch.ones(1)}], {}, spec, "f" * 64)
    with refused(InvalidError, "larger-than-allowed", says="FC999999"):
        contexts.load(content)


def test_a_newer_format_is_refused() -> None:
    """The error names the known formats and says what to do."""
    content = contexts.dump([{"x": torch.ones(1)}], {}, trial("flynet"), "f")
    tensors, header = tensorfile.parse(content)
    newer = tensorfile.dump(tensors, {**header, "format": context_files.BANK_FORMAT + 1})
    with refused(InvalidError, "newer-format", says=[str(context_files.BANK_FORMAT), "given 3"]):
        contexts.load(newer)


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "not-tensors"), (b"garbage" * 10, "not-tensors"), (tensorfile.dump({}, {}), "not-contexts")],
)
def test_other_bytes_are_refused(content: bytes, code: str) -> None:
    """Whatever is no context bank raises ValueError."""
    with refused(InvalidError, code):
        contexts.load(content)


def test_a_resume_point_is_no_bank(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other file that a trial writes is refused like any other bytes."""
    monkeypatch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
    _, events = run("flynet", digits)
    point = next(event for event in events if isinstance(event, ResumePoint))
    with refused(InvalidError, "not-contexts", says="'resume point'"):
        contexts.load(point.content)
