"""Banks of several tasks, trials and people: predicting for mixed tasks, selecting, merging, renaming."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from crwn import backbone, contexts
from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.split import SplitSpec
from crwn.contexts import ContextBank
from crwn.data import Datasets
from crwn.faults import InvalidError
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.test_contexts import run, trial
from tests.methods import CASES
from tests.refusals import refused

TOLD = [
    name
    for name in CASES
    if CASES[name].trial().blueprint().is_continual and "tasks" in CASES[name].trial().blueprint().needs
]
"""Cases whose methods answer for a task that they are told."""

Learned = Callable[[TrialSpec], ContextBank]


@pytest.fixture(scope="module")
def bank(digits: Datasets) -> ContextBank:
    """Three turns, in contexts."""
    return contexts.load(run("neuromodnet", digits)[0].contexts)


@pytest.fixture(scope="module")
def learned(digits: Datasets) -> Learned:
    """The bank of a trial."""
    return lambda spec: contexts.load(run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=True).contexts)


@pytest.fixture(scope="module")
def another(learned: Learned) -> ContextBank:
    """Somebody else's: two permutations on the same frozen weights."""
    return learned(dataclasses.replace(trial("neuromodnet"), benchmark=PermutedSpec(base="digits", num_tasks=2)))


@pytest.fixture(scope="module")
def images(digits: Datasets) -> torch.Tensor:
    return torch.from_numpy(digits.load("digits").test.images[:40])


# Several tasks at once


@pytest.mark.parametrize("name", TOLD)
def test_images_of_several_tasks_are_answered_together(name: str, digits: Datasets, images: torch.Tensor) -> None:
    """Scores equal those of single images, in the images' order, for contexts, masks, factors and weights."""
    bank = contexts.load(run(name, digits)[0].contexts)
    places = [(7 * number + number // 5) % bank.num_tasks for number in range(len(images))]
    together = bank.predict(images, task=places)
    alone = torch.cat([bank.predict(image[None], task=place) for image, place in zip(images, places, strict=True)])
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert len({tuple(row.argmax().item() for row in together[:5])}) == 1


@pytest.mark.parametrize("name", TOLD)
def test_all_tasks_are_asked_at_once(name: str, digits: Datasets, images: torch.Tensor) -> None:
    """The same images under every task, or under some, in the requested order."""
    bank = contexts.load(run(name, digits)[0].contexts)
    found = bank.predict_all(images)
    assert found.shape == (bank.num_tasks, len(images), 10)
    for place in range(bank.num_tasks):
        assert torch.allclose(found[place], bank.predict(images, task=place), rtol=1e-5, atol=1e-5)
    assert torch.allclose(bank.predict_all(images, [1, 0, 1]), found[[1, 0, 1]], rtol=1e-5, atol=1e-5)
    assert bank.predict_all(images, []).shape == (0, len(images), 10)


def test_a_network_of_convolutions_answers_for_several_tasks(learned: Learned, images: torch.Tensor) -> None:
    """Each task has its own running statistics."""
    bank = learned(dataclasses.replace(trial("neuromodnet"), scale="nf2"))
    places = [number % 3 for number in range(len(images))]
    alone = torch.cat([bank.predict(image[None], task=place) for image, place in zip(images, places, strict=True)])
    assert torch.allclose(bank.predict(images, task=places), alone, rtol=1e-4, atol=1e-4)


def test_tasks_are_numbers_or_names_in_any_sequence(bank: ContextBank, images: torch.Tensor) -> None:
    """Lists, arrays and tensors; names and numbers mixed."""
    places = [0, 2] * 20
    expected = bank.predict(images, task=places)
    for given in (np.array(places), torch.tensor(places), tuple(places), ["rotated 0", 2] * 20):
        assert torch.equal(bank.predict(images, task=given), expected)
    assert torch.equal(bank.predict(images, task="rotated 2"), bank.predict(images, task=2))
    assert bank.predict(images[:0], task=[]).shape == (0, 10)


@pytest.mark.parametrize(
    ("task", "code"),
    [
        ([0, 1], "not-a-task-per-image"),
        ([], "not-a-task-per-image"),
        ([0] * 39 + [3], "unknown-task"),
        ([0] * 39 + [True], "unknown-task"),
        (np.zeros(40), "unknown-task"),
        (np.zeros((40, 1), dtype=int), "unknown-task"),
        ("rotated 7", "unknown-task"),
        (["rotated 0"] * 39 + ["upright"], "unknown-task"),
        (1.0, "unknown-task"),
    ],
)
def test_tasks_that_are_none_are_refused(bank: ContextBank, images: torch.Tensor, task: object, code: str) -> None:
    """There must be one for each image, and each must be in the bank."""
    with refused(InvalidError, code):
        bank.predict(images, task=task)  # type: ignore[arg-type]


def test_an_unknown_name_names_the_nearest(bank: ContextBank, images: torch.Tensor) -> None:
    """The error for a misspelt name lists the nearest ones."""
    with refused(InvalidError, "unknown-task", says=["'rotated2'", "rotated 2"]):
        bank.predict(images, task="rotated2")


# Banks as values


def test_some_tasks_are_a_bank(bank: ContextBank, images: torch.Tensor) -> None:
    """In the requested order; each predicts as before and keeps its origin."""
    some = bank.with_mean_images(torch.arange(192, dtype=torch.uint8).view(3, 64)).select(["rotated 2", 0])
    assert [task.index for task in some.tasks] == [2, 0]
    assert torch.equal(some.predict(images, task=0), bank.predict(images, task=2))
    assert torch.equal(contexts.load(some.to_bytes()).predict(images, task="rotated 0"), bank.predict(images, task=0))
    assert some.mean_images is not None
    assert some.mean_images[:, 0].tolist() == [128, 0]


@pytest.mark.parametrize(("tasks", "code"), [([], "no-task"), ([0, 0], "name-twice"), ([3], "unknown-task")])
def test_what_cannot_be_selected_is_refused(bank: ContextBank, tasks: list[int], code: str) -> None:
    """No task, a repeated task, an unknown task."""
    with refused(InvalidError, code):
        bank.select(tasks)


def test_tasks_have_other_names(bank: ContextBank, images: torch.Tensor) -> None:
    """By number, by name or by a function; classes too."""
    named = bank.renamed({0: "upright", "rotated 2": "tilted"}, classes={0: [f"digit {label}" for label in range(10)]})
    assert [task.name for task in named.tasks] == ["upright", "rotated 1", "tilted"]
    assert (named.tasks[0].classes[3], named.tasks[1].classes[3]) == ("digit 3", "3")
    assert torch.equal(named.predict(images, task="tilted"), bank.predict(images, task=2))
    assert [task.name for task in bank.renamed(str.upper).tasks] == ["ROTATED 0", "ROTATED 1", "ROTATED 2"]
    assert contexts.load(named.to_bytes()).tasks == named.tasks


def test_names_that_are_none_are_refused(bank: ContextBank) -> None:
    """Repeated, empty or unprintable names, unknown tasks, too few classes."""
    with refused(InvalidError, "name-twice", says="'rotated 1'"):
        bank.renamed({0: "rotated 1"})
    for name in ("", "a\nb", "a" * 300):
        with refused(InvalidError, "not-a-name"):
            bank.renamed({0: name})
    with refused(InvalidError, "unknown-task"):
        bank.renamed({7: "seven"})
    with refused(InvalidError, "not-a-name-per-class", says=["expected 10", "given 2"]):
        bank.renamed({}, classes={0: ["cat", "dog"]})


def test_banks_of_two_people_are_one(bank: ContextBank, another: ContextBank, images: torch.Tensor) -> None:
    """Rotations and permutations on one backbone: each task predicts as in its own bank, also from a saved file."""
    merged = bank.merge(another)
    assert [task.name for task in merged.tasks[2:]] == ["rotated 2", "permuted 0", "permuted 1"]
    assert merged.specs.keys() == {bank.trial_id, another.trial_id}
    for found in (merged, contexts.load(merged.to_bytes())):
        assert torch.equal(found.predict(images, task="permuted 1"), another.predict(images, task=1))
        assert torch.equal(found.predict(images, task="rotated 1"), bank.predict(images, task=1))
        mixed = found.predict(images, task=["permuted 0", "rotated 2"] * 20)
        assert torch.allclose(mixed[1::2], bank.predict(images, task=2)[1::2], rtol=1e-5, atol=1e-5)
        assert torch.allclose(mixed[::2], another.predict(images, task=0)[::2], rtol=1e-5, atol=1e-5)
    assert merged.select(["permuted 0"]).specs.keys() == {another.trial_id}
    with refused(InvalidError, "several-trials"):
        merged.trial  # noqa: B018 (it raises)


def test_methods_with_other_settings_may_share_a_bank(
    bank: ContextBank, learned: Learned, images: torch.Tensor
) -> None:
    """Contexts with different starts can be merged; each task's network predicts as before."""
    other = learned(dataclasses.replace(trial("neuromodnet"), method=NeuroModNetSpec(context_low=0.0)))
    merged = bank.merge(other.renamed(lambda name: f"positive {name}"))
    mixed = merged.predict(images, task=[0, 5] * 20)
    assert torch.allclose(mixed[1::2], other.predict(images, task=2)[1::2], rtol=1e-5, atol=1e-5)
    assert torch.allclose(mixed[::2], bank.predict(images, task=0)[::2], rtol=1e-5, atol=1e-5)
    every = merged.predict_all(images)
    assert torch.allclose(every[4], other.predict(images, task=1), rtol=1e-5, atol=1e-5)


def test_a_task_is_added(bank: ContextBank, another: ContextBank, images: torch.Tensor) -> None:
    """A task of another bank is added at the end, under a new name."""
    more = bank.add(another, "permuted 1", name="scrambled")
    assert [task.name for task in more.tasks] == ["rotated 0", "rotated 1", "rotated 2", "scrambled"]
    assert (more.tasks[3].trial_id, more.tasks[3].index) == (another.trial_id, 1)
    assert torch.equal(more.predict(images, task="scrambled"), another.predict(images, task=1))


def test_mean_images_are_merged_if_all_have_them(bank: ContextBank, another: ContextBank) -> None:
    """Else the bank has none."""
    one = bank.with_mean_images(torch.zeros(3, 64, dtype=torch.uint8))
    two = another.with_mean_images(torch.ones(2, 64, dtype=torch.uint8))
    merged = one.merge(two).mean_images
    assert merged is not None
    assert merged[:, 0].tolist() == [0, 0, 0, 1, 1]
    assert one.merge(another).mean_images is None
    with refused(InvalidError, "tensors-do-not-fit", says="[3, 64]"):
        bank.with_mean_images(torch.zeros(2, 64, dtype=torch.uint8))


def test_banks_that_do_not_fit_are_not_merged(bank: ContextBank, learned: Learned, digits: Datasets) -> None:
    """One task twice, other frozen weights, another method, other shared weights, one network for all tasks."""
    with refused(InvalidError, "name-twice", says=["rotated 0", "renamed"]):
        bank.merge(bank)
    with refused(InvalidError, "other-backbone"):
        bank.merge(learned(dataclasses.replace(trial("neuromodnet"), seed=1)))
    with refused(InvalidError, "other-backbone"):
        bank.merge(learned(trial("supsup")))
    pretrained = trial("neuromodnet-pretrained")
    one, two = (
        learned(pretrained),
        learned(dataclasses.replace(pretrained, training=dataclasses.replace(pretrained.training, updates_per_task=2))),
    )
    with refused(InvalidError, "other-shared-weights"):
        one.merge(two.renamed(lambda name: f"other {name}"))
    assert one.select([0]).merge(one.select([1])).num_tasks == 2
    with refused(InvalidError, "task-not-told", says="mtl"):
        bank.merge(learned(trial("mtl")))


def test_one_network_for_all_tasks_has_no_tasks_to_choose(digits: Datasets, images: torch.Tensor) -> None:
    """A bank of such a method is saved and loaded too; its tasks are not told."""
    bank = contexts.load(run("finetune-class", digits)[0].contexts)
    again = contexts.load(bank.to_bytes())
    assert torch.equal(again.predict(images), bank.predict(images))
    with refused(InvalidError, "task-not-told", says="finetune"):
        bank.select([0])
    with refused(InvalidError, "task-not-told"):
        bank.predict_all(images)


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_saved_bank_answers_as_before(name: str, dtype: str, digits: Datasets, images: torch.Tensor) -> None:
    """Exactly in float32, nearly so if rounded. Masks stay bits."""
    bank = contexts.load(run(name, digits)[0].contexts)
    again = contexts.load(bank.to_bytes(dtype=dtype))  # type: ignore[arg-type]
    expected, found = bank.predict(images, task=1), again.predict(images, task=1)
    if dtype == "float32" or name == "supsup":
        assert torch.equal(found, expected)
    else:
        assert torch.allclose(found, expected, atol=0.1 * float(expected.abs().max()))


def test_a_float64_bank_is_saved_too(learned: Learned, images: torch.Tensor) -> None:
    """Rounded numbers are float64 again when they are read."""
    spec = trial("neuromodnet")
    bank = learned(dataclasses.replace(spec, training=dataclasses.replace(spec.training, dtype="float64")))
    again = contexts.load(bank.to_bytes(dtype="int8"))
    assert again.tensors["layer1.context"].dtype == torch.float64
    assert torch.allclose(again.predict(images, task=0), bank.predict(images, task=0), atol=0.5)


def test_a_carried_backbone_is_used(bank: ContextBank, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a bank does not depend on the NumPy version that draws its numbers."""
    expected = bank.predict(images, task=0)
    content = bank.to_bytes(backbone=True)

    def draw(spec: backbone.BackboneSpec) -> backbone.Backbone:
        raise AssertionError(spec)

    monkeypatch.setattr(backbone, "draw", draw)
    assert torch.equal(contexts.load(content).predict(images, task=0), expected)


def test_classes_are_those_of_the_base_set() -> None:
    """If tasks renumber classes, an output has the name of its class; otherwise, of its label."""
    spec = SplitSpec(num_tasks=20)
    behind = spec.classes_behind(3)
    assert sorted(label for group in behind for label in group) == list(range(100))
    assert SplitSpec(num_tasks=20, first=2).classes_behind(3) == behind[:2]


def test_a_bank_travels_to_another_process(bank: ContextBank, images: torch.Tensor) -> None:
    """Pickled before or after predicting, a bank has the same tasks and predicts alike."""
    fresh = dataclasses.replace(bank)
    sent = pickle.loads(pickle.dumps(fresh))  # noqa: S301 (the bytes were made on this line)
    expected = fresh.predict_all(images)
    again = pickle.loads(pickle.dumps(fresh))  # noqa: S301 (as above)
    for other in (sent, again):
        assert type(other) is ContextBank
        assert other.tasks == bank.tasks
        assert torch.equal(other.predict_all(images), expected)


def test_what_is_made_of_a_bank_is_a_bank(bank: ContextBank, another: ContextBank) -> None:
    """Every edit returns a bank, which can be edited and used again."""
    made = [bank.select([0]), bank.renamed(str.upper), bank.merge(another), bank.described("ours")]
    assert {type(each) for each in made} == {ContextBank}


def test_a_bank_is_told_apart_at_a_glance(bank: ContextBank) -> None:
    """Its repr names the first tasks."""
    assert repr(bank) == "<context bank of 3 tasks: rotated 0, rotated 1, rotated 2>"
    assert repr(bank.add(bank, 0, name="more")).endswith("rotated 2, ...>")
