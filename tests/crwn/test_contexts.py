"""The context bank: what is kept of every learned task."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import crwn.engine
from crwn import backbone, contexts, tensorfile
from crwn.benchmarks import BENCHMARKS
from crwn.data import Datasets
from crwn.events import Numerics, ResumePoint
from crwn.methods import METHODS
from crwn.methods.protocol import Method
from crwn.spec import SCENARIOS, TrialSpec
from crwn.trial import Event, Finished, run_trial
from tests.crwn.methods.building import plain_surroundings
from tests.methods import CASES

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
    """With weights; the group size of a method that has no choice is its own."""
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
    """Tasks are put one after the other along the first axis, shared weights beside them under a name of their own.

    The header says what they belong to.
    """
    kept = [
        {"x": torch.tensor([[1.0, 2.0]]), "a": torch.tensor([3.0])},
        {"x": torch.tensor([[4.0, 5.0]]), "a": torch.tensor([6.0])},
    ]
    spec = trial("flynet")
    shared = {"w": torch.tensor([[7.0]])}
    bank = contexts.load(contexts.dump(kept, shared, spec, "f" * 64))
    assert bank.tensors["x"].tolist() == [[1, 2], [4, 5]]
    assert bank.tensors["a"].tolist() == [3, 6]
    assert bank.tensors["shared.w"].tolist() == [[7]]
    assert bank.trial_id == spec.trial_id
    assert bank.spec == json.loads(spec.canonical_json())
    assert bank.fingerprint == "f" * 64


def test_equal_content_gives_equal_bytes() -> None:
    """A store can compare two runs by their bytes."""
    kept = [{"x": torch.ones(1, 2)}]
    assert contexts.dump(kept, {}, trial("flynet"), "f") == contexts.dump(kept, {}, trial("flynet"), "f")
    assert contexts.dump(kept, {}, trial("flynet"), "f") != contexts.dump(kept, {}, trial("flynet"), "e")
    assert contexts.dump(kept, {}, trial("flynet"), "f") != contexts.dump(kept, kept[0], trial("flynet"), "f")


@pytest.mark.parametrize("kept", [(), ({}, {}, {})], ids=["left out", "nothing of a task's own"])
def test_a_bank_may_be_empty(kept: tuple[dict[str, torch.Tensor], ...]) -> None:
    """What a trial keeps may be nothing but its name and spec."""
    bank = contexts.load(contexts.dump(kept, {}, trial("mtl"), "f"))
    assert bank.tensors == {}
    assert bank.trial_id == trial("mtl").trial_id
    assert set(contexts.load(contexts.dump(kept, {"w": torch.ones(1)}, trial("mtl"), "f")).tensors) == {"shared.w"}


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
    """What a task keeps, [T, ...], among it weights of its own; and those that tasks share, without a task axis."""
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


@pytest.mark.parametrize("name", CASES)
def test_a_bank_gives_the_accuracies_that_were_reported(name: str, digits: Datasets) -> None:
    """The last row of the trial again, from nothing but the bank and the frozen weights: what contexts are kept for."""
    spec, cpu = trial(name), torch.device("cpu")
    finished, _ = run(name, digits)
    bank = contexts.load(finished.contexts)
    method, num_tasks = method_of(name), num_tasks_of(name)
    entry = BENCHMARKS[spec.benchmark.kind]
    tasks = entry.build(spec.benchmark, digits.load("digits"), spec.seed, cpu)
    accuracies = {row.task: row.accuracy for row in finished.rows if row.tasks_learned == num_tasks}
    own = {key: tensor for key, tensor in bank.tensors.items() if not key.startswith("shared.")}
    shared = {key.removeprefix("shared."): tensor for key, tensor in bank.tensors.items() if key not in own}
    assert len(accuracies) == num_tasks
    for task, accuracy in accuracies.items():
        state = method.unpack({key: tensor[task : task + 1] for key, tensor in own.items()}, [task]) | shared
        split = tasks.test_split(task)
        told = task if "tasks" in SCENARIOS[spec.benchmark.problem().scenario] else None
        logits = method.logits(state, method.prepare(told, split.images)[None])[0]
        assert (logits.argmax(dim=1) == split.labels).double().mean().item() == pytest.approx(accuracy, abs=1e-12)


def test_a_newer_format_is_refused() -> None:
    """A reader that does not know a format says which it knows and what to do."""
    content = contexts.dump([{"x": torch.ones(1)}], {}, trial("flynet"), "f")
    tensors, header = tensorfile.parse(content)
    newer = tensorfile.dump(tensors, {**header, "format": contexts.FORMAT + 1})
    with pytest.raises(ValueError, match=f"contexts: expected format {contexts.FORMAT}, given 2; use a newer crwn"):
        contexts.load(newer)


@pytest.mark.parametrize("content", [b"", b"garbage" * 10, tensorfile.dump({}, {})])
def test_other_bytes_are_refused(content: bytes) -> None:
    """Whatever is no context bank raises ValueError."""
    with pytest.raises(ValueError, match="expected"):
        contexts.load(content)


def test_a_resume_point_is_no_bank(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other file that a trial writes is refused like any other bytes."""
    monkeypatch.setattr(crwn.engine, "MIN_RESUME_SECONDS", 0.0)
    _, events = run("flynet", digits)
    point = next(event for event in events if isinstance(event, ResumePoint))
    with pytest.raises(ValueError, match="expected a file of contexts, given one of 'resume point'"):
        contexts.load(point.content)
