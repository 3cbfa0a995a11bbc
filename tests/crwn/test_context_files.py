"""Files of contexts: reading returns what was written, and untrusted files are checked before anything is drawn."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crwn import backbone, context_files, contexts, tensorfile
from crwn.contexts import ContextBank
from crwn.data import Datasets
from crwn.faults import InvalidError
from crwn.methods.protocol import Tensors
from crwn.spec import trial_id_of
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.methods import CASES
from tests.refusals import refused

Header = dict[str, Any]
Change = Callable[[Tensors, Header], None]


def spec_of(name: str) -> TrialSpec:
    return CASES[name].trial(scale="FC9" if CASES[name].scale.startswith("FC") else CASES[name].scale)


@pytest.fixture(scope="module")
def stored(digits: Datasets) -> bytes:
    """A trial's contexts.safetensors."""
    return run_trial(spec_of("neuromodnet"), data=digits, backbones=backbone.draw).contexts


@pytest.fixture(scope="module")
def saved(stored: bytes) -> bytes:
    """A bank of two of its tasks, with every optional part."""
    images = torch.arange(3 * 64, dtype=torch.uint8).view(3, 64)
    bank = contexts.load(stored).with_mean_images(images).described("made by nobody").select([2, 0])
    return bank.to_bytes(dtype="int8", backbone=True, mean_images=True)


@pytest.fixture(autouse=True)
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Loading a hostile file draws no frozen weights."""
    if "change" in request.fixturenames:
        request.getfixturevalue("stored")

        def draw(spec: backbone.BackboneSpec) -> backbone.Backbone:
            raise AssertionError(f"drew {spec.num_bytes} bytes")

        monkeypatch.setattr(backbone, "draw", draw)


def changed(content: bytes, change: Change) -> bytes:
    """The file with changed tensors or header and valid checksums, as an attacker could write it."""
    tensors, header = tensorfile.parse(content)
    header = copy.deepcopy(header)
    change(tensors, header)
    return tensorfile.dump(tensors, header)


def with_spec(change: Callable[[Header], None]) -> Change:
    """The trial's spec changed, and its id with it, so that the two agree."""

    def apply(tensors: Tensors, header: Header) -> None:
        del tensors
        values = header.get("spec") or next(iter(header["specs"].values()))
        change(values)
        trial_id = trial_id_of(json.dumps(values, sort_keys=True, separators=(",", ":")))
        if "spec" in header:
            header["trial_id"] = trial_id
            return
        header["specs"] = {trial_id: values}
        for task in header["tasks"]:
            task["trial_id"] = trial_id

    return apply


def header_with(**values: Any) -> Change:
    return lambda _, header: header.update(values)


def without(key: str) -> Change:
    return lambda _, header: header.pop(key)


def task_with(**values: Any) -> Change:
    return lambda _, header: header["tasks"][1].update(values)


def tensor(name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda tensors, _: tensors.update({name: make(tensors[name])})


def holed(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A tensor with one number replaced."""

    def make(given: torch.Tensor) -> torch.Tensor:
        given = given.clone()
        given.view(-1)[-1] = value
        return given

    return make


CONTEXT = "layer2.context"

HOSTILE_TRIALS: dict[str, tuple[Change, str]] = {
    "not a number": (tensor(CONTEXT, holed(float("nan"))), "not-finite"),
    "infinite": (tensor(CONTEXT, holed(float("inf"))), "not-finite"),
    "minus infinity in a strength": (tensor("layer1.strength", holed(float("-inf"))), "not-finite"),
    "a tensor missing": (lambda tensors, _: tensors.pop(CONTEXT), "tensors-do-not-fit"),
    "all tensors missing": (lambda tensors, _: tensors.clear(), "tensors-do-not-fit"),
    "a tensor more": (lambda tensors, _: tensors.update(more=torch.ones(3, 9)), "tensors-do-not-fit"),
    "a weight of tasks that share none": (
        lambda tensors, _: tensors.update({"shared.layer1.weight": torch.ones(9, 64)}),
        "tensors-do-not-fit",
    ),
    "too few tasks": (tensor(CONTEXT, lambda given: given[:2]), "tensors-do-not-fit"),
    "too many tasks": (tensor(CONTEXT, lambda given: given.repeat(2, 1)), "tensors-do-not-fit"),
    "no task axis": (tensor(CONTEXT, lambda given: given[0]), "tensors-do-not-fit"),
    "too few inputs": (tensor(CONTEXT, lambda given: given[:, :8]), "tensors-do-not-fit"),
    "one axis more": (tensor(CONTEXT, lambda given: given[..., None]), "tensors-do-not-fit"),
    "no numbers at all": (tensor(CONTEXT, lambda given: given[:0]), "tensors-do-not-fit"),
    "another dtype": (tensor(CONTEXT, lambda given: given.double()), "tensors-do-not-fit"),
    "whole numbers": (tensor(CONTEXT, lambda given: given.long()), "tensors-do-not-fit"),
    "of another content": (header_with(content="resume point"), "not-contexts"),
    "without a content": (without("content"), "not-contexts"),
    "of a newer format": (header_with(format=3), "newer-format"),
    "of a format that is a text": (header_with(format="1"), "newer-format"),
    "without a trial id": (without("trial_id"), "missing-key"),
    "without a spec": (without("spec"), "missing-key"),
    "without a fingerprint": (without("fingerprint"), "missing-key"),
    "a trial id that is a number": (header_with(trial_id=7), "wrong-type"),
    "a trial id that is a path": (header_with(trial_id="../../etc/passwd"), "not-a-trial-id"),
    "another trial's id": (header_with(trial_id="0" * 16), "another-trial"),
    "a spec that is a text": (header_with(spec="neuromodnet"), "wrong-type"),
    "a spec that is a list": (header_with(spec=[]), "wrong-type"),
    "starts of other tasks": (header_with(starts=["own"]), "tensors-do-not-fit"),
    "starts that are numbers": (header_with(starts=[1, 2, 3]), "wrong-type"),
    "a fingerprint that is a number": (header_with(fingerprint=0), "wrong-type"),
    "a spec without a method": (with_spec(lambda spec: spec.pop("method")), "missing-key"),
    "a spec of an unknown method": (with_spec(lambda spec: spec.update(method={"kind": "magic"})), "unknown-name"),
    "a spec of an unknown benchmark": (with_spec(lambda spec: spec["benchmark"].update(kind="m")), "unknown-name"),
    "a spec with an unknown setting": (with_spec(lambda spec: spec["method"].update(magic=1)), "unknown-key"),
    "a method that is a text": (with_spec(lambda spec: spec.update(method="neuromodnet")), "wrong-type"),
    "a seed below zero": (with_spec(lambda spec: spec.update(seed=-1)), "too-small"),
    "a network of terabytes": (with_spec(lambda spec: spec.update(scale="FC999999")), "larger-than-allowed"),
    "tasks without end": (with_spec(lambda spec: spec["benchmark"].update(num_tasks=2**62)), "too-many-tasks"),
    "tasks that fill the memory": (
        with_spec(lambda spec: spec["benchmark"].update(num_tasks=10**9, step_degrees=1e-9)),
        "too-many-tasks",
    ),
    "other tasks than it has tensors of": (
        with_spec(lambda spec: spec["benchmark"].update(num_tasks=4)),
        "tensors-do-not-fit",
    ),
    "another scale": (with_spec(lambda spec: spec.update(scale="FC10")), "tensors-do-not-fit"),
    "another method": (with_spec(lambda spec: spec.update(method={"kind": "supsup"})), "tensors-do-not-fit"),
}

HOSTILE_BANKS: dict[str, tuple[Change, str]] = {
    "without specs": (without("specs"), "missing-key"),
    "without tasks": (without("tasks"), "missing-key"),
    "without a recipe": (without("backbone"), "missing-key"),
    "without a card": (without("card"), "missing-key"),
    "no task": (header_with(tasks=[]), "too-many-tasks"),
    "tasks that are a text": (header_with(tasks="rotated"), "wrong-type"),
    "a task that is a number": (lambda _, header: header["tasks"].append(3), "wrong-type"),
    "a task with a key more": (task_with(code="import os"), "wrong-type"),
    "a task without a name": (lambda _, header: header["tasks"][0].pop("name"), "wrong-type"),
    "one name twice": (lambda _, header: header["tasks"][1].update(name=header["tasks"][0]["name"]), "name-twice"),
    "an empty name": (task_with(name=""), "not-a-task"),
    "a name that moves the cursor": (task_with(name="\x1b[2J"), "not-a-task"),
    "a name without end": (task_with(name="a" * 10_000), "not-a-task"),
    "a name that is a number": (task_with(name=3), "not-a-task"),
    "a task of no trial": (task_with(trial_id="0" * 16), "not-a-task"),
    "a trial id that is a list": (task_with(trial_id=[]), "not-a-task"),
    "a task that the trial does not have": (task_with(index=3), "not-the-trials-task"),
    "a task below zero": (task_with(index=-1), "not-a-task"),
    "a task that is a truth": (task_with(index=True), "not-a-task"),
    "classes too few": (task_with(classes=["0", "1"]), "not-a-name-per-class"),
    "classes that are numbers": (task_with(classes=list(range(10))), "not-a-task"),
    "no classes": (task_with(classes=None), "not-a-task"),
    "an accuracy above one": (task_with(accuracy=90.1), "not-a-task"),
    "an accuracy that is a text": (task_with(accuracy="high"), "not-a-task"),
    "a start that is none": (task_with(start=None), "not-a-task"),
    "a spec of no task": (lambda _, header: header["specs"].update({"0" * 16: {}}), "another-trial"),
    "a card without end": (header_with(card="a" * 10**6), "too-long"),
    "another recipe": (lambda _, header: header["backbone"].update(seed=1), "other-backbone"),
    "a recipe of terabytes": (
        lambda _, header: header["backbone"]["arrays"][0].update(shape=[10**6, 10**6]),
        "other-backbone",
    ),
    "one task more than it has tensors of": (
        lambda _, header: header["tasks"].append({**header["tasks"][0], "name": "more"}),
        "tensors-do-not-fit",
    ),
    "a scale that is not a number": (tensor(f"{CONTEXT[:5]}1.context.scale", holed(float("nan"))), "not-finite"),
    "too few scales": (tensor("layer1.context.scale", lambda given: given[:1]), "tensors-do-not-fit"),
    "whole numbers without a scale": (lambda tensors, _: tensors.pop("layer1.context.scale"), "tensors-do-not-fit"),
    "a scale of nothing": (lambda tensors, _: tensors.update({"x.scale": torch.ones(2)}), "tensors-do-not-fit"),
    "mean images of floats": (tensor("mean_images", lambda given: given.float()), "tensors-do-not-fit"),
    "mean images too small": (tensor("mean_images", lambda given: given[:, :9]), "tensors-do-not-fit"),
    "mean images of other tasks": (tensor("mean_images", lambda given: given[:1]), "tensors-do-not-fit"),
    "a frozen array missing": (lambda tensors, _: tensors.pop("backbone.layer1"), "tensors-do-not-fit"),
    "a frozen array more": (lambda tensors, _: tensors.update({"backbone.x": torch.ones(1)}), "tensors-do-not-fit"),
    "a frozen array of another shape": (tensor("backbone.layer1", lambda given: given.T), "tensors-do-not-fit"),
    "a frozen array that is not finite": (tensor("backbone.layer1", holed(float("nan"))), "not-finite"),
    "a network of terabytes": (with_spec(lambda spec: spec.update(scale="FC999999")), "larger-than-allowed"),
    "tasks without end": (with_spec(lambda spec: spec["benchmark"].update(num_tasks=2**62)), "too-many-tasks"),
    "an unknown method": (with_spec(lambda spec: spec.update(method={"kind": "magic"})), "unknown-name"),
}


@pytest.mark.parametrize(("change", "code"), HOSTILE_TRIALS.values(), ids=HOSTILE_TRIALS)
def test_a_trials_file_that_is_not_as_it_should_be_is_refused(stored: bytes, change: Change, code: str) -> None:
    """Each fault has its code, and is found before anything is drawn."""
    content = changed(stored, change)
    with refused(InvalidError, code):
        contexts.load(content)


@pytest.mark.parametrize(("change", "code"), HOSTILE_BANKS.values(), ids=HOSTILE_BANKS)
def test_a_bank_that_is_not_as_it_should_be_is_refused(saved: bytes, change: Change, code: str) -> None:
    """The same for a saved bank: nothing in its header is trusted."""
    content = changed(saved, change)
    with refused(InvalidError, code):
        contexts.load(content)


@pytest.mark.parametrize("place", [0, 7, 100, 3000, -1], ids=["length", "its end", "header", "tensors", "last"])
def test_a_damaged_byte_is_a_damaged_file(saved: bytes, place: int) -> None:
    """The file's checksum covers header and tensors."""
    damaged = bytearray(saved)
    damaged[place] ^= 0x10
    with pytest.raises(InvalidError) as caught:
        contexts.load(bytes(damaged))
    assert set(caught.value.codes) <= {"not-tensors", "content-changed"}


@pytest.mark.parametrize("length", [0, 4, 8, 500, -1])
def test_a_file_that_was_cut_is_refused(saved: bytes, length: int) -> None:
    """A truncated file is refused."""
    with refused(InvalidError, "not-tensors"):
        contexts.load(saved[:length])


def test_a_larger_network_may_be_allowed(stored: bytes) -> None:
    """The message says how, and the size that it needs."""
    needed = spec_of("neuromodnet").blueprint().backbone.num_bytes
    with refused(InvalidError, "larger-than-allowed", says=[f"largest={needed}", "FC9"]):
        contexts.load(stored, largest=needed - 1)
    assert contexts.load(stored, largest=needed).num_tasks == 3


def test_frozen_arrays_that_are_not_the_trials_are_refused(saved: bytes) -> None:
    """A bank that carries its weights carries those of its fingerprint."""
    bank = contexts.load(changed(saved, tensor("backbone.layer1", holed(9.0))))
    with refused(InvalidError, "other-backbone", says=bank.fingerprint):
        bank.predict(torch.zeros(1, 64, dtype=torch.uint8), task=0)


def test_what_was_saved_is_loaded(stored: bytes, tmp_path: Path) -> None:
    """Names, origins, tensors, mean images, card and weights return bit for bit; equal banks give equal bytes."""
    images = torch.arange(3 * 64, dtype=torch.uint8).view(3, 64)
    bank = contexts.load(stored).with_mean_images(images).described("three turns").renamed({0: "upright"})
    size = bank.save(tmp_path / "bank.safetensors", backbone=True, mean_images=True)
    again = ContextBank.load(tmp_path / "bank.safetensors")
    assert size == (tmp_path / "bank.safetensors").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["bank.safetensors"]
    assert again.tasks == bank.tasks
    assert (again.specs, again.fingerprint) == (bank.specs, bank.fingerprint)
    assert again.card == f"three turns\n{context_files.NOTE}"
    assert all(torch.equal(again.tensors[name], given) for name, given in bank.tensors.items())
    assert again.mean_images is not None
    assert torch.equal(again.mean_images, images)
    assert again.arrays.keys() == {"layer1", "layer2", "layer3"}
    assert again.to_bytes(backbone=True, mean_images=True) == bank.to_bytes(backbone=True, mean_images=True)


def test_mean_images_and_weights_are_saved_on_request_only(stored: bytes) -> None:
    """Mean images reveal something about the training data; frozen weights are most of the bytes."""
    bank = contexts.load(stored)
    small = contexts.load(bank.with_mean_images(torch.zeros(3, 64, dtype=torch.uint8)).to_bytes())
    assert small.mean_images is None
    assert small.card == ""
    assert small.arrays == {}
    with refused(InvalidError, "no-mean-images"):
        bank.to_bytes(mean_images=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2**-11), ("int8", 0.5 / 127)])
def test_numbers_are_rounded_as_said(stored: bytes, dtype: Any, tolerance: float) -> None:
    """float16 has 11 bits; an 8-bit integer is wrong by at most half a step of its task's largest number."""
    bank = contexts.load(stored)
    again = contexts.load(bank.to_bytes(dtype=dtype))
    for name, exact in bank.tensors.items():
        largest = exact.abs().flatten(1).amax(dim=1, keepdim=True) if exact.dim() > 1 else exact.abs()
        assert again.tensors[name].dtype == exact.dtype
        assert bool(((again.tensors[name] - exact).abs() <= tolerance * largest * 1.0001).all())


def test_a_dtype_that_is_none_is_refused(stored: bytes) -> None:
    """The message names those that there are."""
    with refused(InvalidError, "unknown-name", says=["float16", "'float8'"]):
        contexts.load(stored).to_bytes(dtype="float8")  # type: ignore[arg-type]


def test_numbers_that_float16_cannot_hold_stay_as_they_are(stored: bytes) -> None:
    """They are stored in float32 rather than as infinity."""
    bank = contexts.load(changed(stored, tensor("layer1.strength", holed(1e6))))
    assert contexts.load(bank.to_bytes(dtype="float16")).tensors["layer1.strength"].max() == 1e6


def test_what_was_written_before_banks_is_read(stored: bytes) -> None:
    """Format 1, which knows no banks, is read, and its bytes are unchanged."""
    tensors, header = tensorfile.parse(stored)
    assert sorted(header) == ["content", "fingerprint", "format", "spec", "trial_id"]
    assert header["format"] == context_files.TRIAL_FORMAT == 1
    bank = contexts.load(stored)
    assert [task.name for task in bank.tasks] == ["rotated 0", "rotated 1", "rotated 2"]
    assert {(task.trial_id, task.start) for task in bank.tasks} == {(header["trial_id"], "own")}
    assert [task.index for task in bank.tasks] == [0, 1, 2]
    assert bank.tensors.keys() == tensors.keys()
