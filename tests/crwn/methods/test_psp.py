"""PSP against two tasks learned in turn in a plain loop; its rotations; how many of them are kept in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from crwn import backbone, contexts, seeding
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import Datasets
from crwn.data.digits import DIGITS
from crwn.methods import psp
from crwn.methods.psp import PSP, PSPSpec
from crwn.spec import ProblemShape, TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.methods.building import plain_surroundings

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_UPDATES, BATCH_SIZE, RATE = 6, 32, 0.003

LAYERS = {"layer1": 64, "layer2": 12, "layer3": 12}
"""Inputs of FC12's layers on digits."""


def trial(num_tasks: int = 2) -> TrialSpec:
    return TrialSpec(
        method=PSPSpec(),
        benchmark=RotatedSpec(base="digits", num_tasks=num_tasks, step_degrees=90),
        scale="FC12",
        seed=1,
        training=TrainingSpec(learning_rate=RATE, updates_per_task=NUM_UPDATES, batch_size=BATCH_SIZE, dtype="float64"),
    )


def build(seed: int = 0, dtype: torch.dtype = torch.float64) -> PSP:
    problem = ProblemShape(input_shape=(1, 8, 8), num_classes=10, num_tasks=5)
    arrays = backbone.draw(PSPSpec().blueprint("FC12", problem, seed).backbone).arrays
    surroundings = plain_surroundings(
        "FC12",
        problem,
        backbone=arrays,
        seed=seed,
        dtype=dtype,
    )
    return PSP(PSPSpec(), surroundings)


def rotations_by_numpy(seed: int, task: int) -> dict[str, torch.Tensor]:
    """Q of a Gaussian matrix from the task's stream, its columns turned so that R's diagonal is positive."""
    rotations = {}
    for name, size in LAYERS.items():
        gaussian = seeding.numpy_generator(seed, "state", task, f"{name}.rotation").standard_normal((size, size))
        q, r = np.linalg.qr(gaussian)
        rotations[name] = torch.from_numpy(q * np.sign(np.diag(r)))
    return rotations


def turned(digits: Datasets, part: str, task: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images [N, d] after so many quarter turns, and labels [N]."""
    split = getattr(digits.load("digits"), part)
    upright = (torch.from_numpy(split.images[:, 0]).double() / 255 - DIGITS.mean[0]) / DIGITS.std[0]
    return torch.rot90(upright, task, dims=(1, 2)).flatten(1), torch.from_numpy(split.labels)


def test_psp_is_one_network_behind_rotations(digits: Datasets) -> None:
    """Two tasks in turn, y = W (C_t x) image by image and layer by layer, W carried on, a new RMSProp for each task.

    After the second task the first is tested again, with its own rotations and the weights as they are by then.
    """
    spec = trial()
    result = run_trial(spec, data=digits, backbones=backbone.draw, keep_weights=True)
    arrays = backbone.draw(spec.blueprint().backbone).arrays
    weights = {name: torch.tensor(array, dtype=torch.float64).requires_grad_() for name, array in arrays.items()}

    def network(image_d: torch.Tensor, rotations: dict[str, torch.Tensor]) -> torch.Tensor:
        h1 = functional.relu(weights["layer1"] @ (rotations["layer1"] @ image_d))
        h2 = functional.relu(weights["layer2"] @ (rotations["layer2"] @ h1))
        return weights["layer3"] @ (rotations["layer3"] @ h2)

    def check_test(place: int, tested: int, tasks_learned: int) -> None:
        row = result.rows[place]
        images, labels = turned(digits, "test", tested)
        with torch.no_grad():
            logits = torch.stack([network(image, rotations_by_numpy(1, tested)) for image in images])
        assert (row.task, row.tasks_learned) == (tested, tasks_learned)
        assert row.loss == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-8)
        assert row.accuracy == (logits.argmax(dim=1) == labels).double().mean().item()

    for task in range(2):
        rotations = rotations_by_numpy(1, task)
        images, labels = turned(digits, "train", task)
        order = seeding.numpy_generator(1, "batches", task, 0).permutation(len(labels))
        optimizer = torch.optim.RMSprop(weights.values(), lr=RATE)
        losses = []
        for step in range(NUM_UPDATES):
            chosen = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            logits = torch.stack([network(image, rotations) for image in images[chosen]])
            loss = functional.cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert result.rows[task].curve[0].loss == pytest.approx(sum(losses) / NUM_UPDATES, rel=1e-9)
        check_test(task, task, task + 1)
    check_test(2, 0, 2)
    assert len(result.rows) == 3
    kept = contexts.load(result.contexts).tensors
    assert len(kept) == 3
    for name, weight in weights.items():
        torch.testing.assert_close(kept[f"shared.{name}.weight"], weight.detach(), rtol=1e-8, atol=1e-12)


def test_contexts_are_orthogonal() -> None:
    """C C^T = I; and with the signs of R's diagonal put right they are the Q of a QR decomposition with R positive."""
    state = build().start([0, 3])
    for name, size in LAYERS.items():
        rotation_GII = state[f"{name}.rotation"]
        assert rotation_GII.shape == (2, size, size)
        assert not rotation_GII.requires_grad
        products = rotation_GII @ rotation_GII.transpose(1, 2)
        torch.testing.assert_close(products, torch.eye(size).double().expand(2, -1, -1), rtol=0, atol=1e-12)
        for place, task in enumerate((0, 3)):
            expected = rotations_by_numpy(0, task)[name]
            torch.testing.assert_close(rotation_GII[place], expected, rtol=0, atol=1e-12)


def test_contexts_are_uniform() -> None:
    """No entry has a preferred sign: of 120 matrices the first entry is negative in half, within five deviations.

    LAPACK's bare Q is not uniform: its reflections make the first entry of every matrix negative. Besides, the trace
    of a uniform orthogonal matrix has mean 0 and variance 1, whatever its size.
    """
    state = build().start(range(40))
    rotations = [rotation for tensor in state.values() for rotation in tensor]
    num_negative = sum(int(rotation[0, 0] < 0) for rotation in rotations)
    assert abs(num_negative - 60) < 5 * 120**0.5 / 2
    traces = torch.stack([rotation.trace() for rotation in rotations])
    assert abs(traces.mean()) < 5 / 120**0.5
    assert abs(traces.var() - 1) < 5 * (2 / 120) ** 0.5  # of about normal numbers


def test_contexts_are_of_a_task_a_layer_and_a_seed() -> None:
    """No two are equal; both precisions have the same ones."""
    drawn = [build(seed).start(range(3)) for seed in (0, 1)]
    contents = {
        rotation[:12, :12].numpy().tobytes() for state in drawn for tensor in state.values() for rotation in tensor
    }
    assert len(contents) == 2 * 3 * 3
    single = build(dtype=torch.float32).start(range(3))
    for name, tensor in single.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, drawn[0][name].float())


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the matrices that are decomposed from now on, as they come."""
    sizes: list[int] = []
    decompose = torch.linalg.qr

    def qr(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(matrix))
        return decompose(matrix)

    monkeypatch.setattr(torch.linalg, "qr", qr)
    return sizes


TASK_BYTES = 8 * (64**2 + 12**2 + 12**2)


@pytest.mark.parametrize(
    ("cache_bytes", "num_kept"),
    [(0, 1), (TASK_BYTES, 1), (2 * TASK_BYTES - 1, 1), (2 * TASK_BYTES, 2), (5 * TASK_BYTES, 5), (2**29, 5)],
)
def test_contexts_are_kept_as_long_as_memory_allows(
    monkeypatch: pytest.MonkeyPatch, cache_bytes: int, num_kept: int
) -> None:
    """As many tasks' as there is room for, always the last one's; the others are drawn again, with the same bits."""
    reference = build().start(range(5))
    monkeypatch.setattr(psp, "CACHE_BYTES", cache_bytes)
    method = build()
    sizes = counted(monkeypatch)
    for task in range(5):
        method.start([task])
    assert sizes == [64, 12, 12] * 5
    for task in range(4, 4 - num_kept, -1):  # the latest first, so that none is driven out before it is asked for
        state = method.unpack({}, [task])
        assert all(torch.equal(tensor[0], reference[name][task]) for name, tensor in state.items())
    assert len(sizes) == 15
    if num_kept < 5:
        state = method.start([4 - num_kept])
        assert len(sizes) == 18
        assert all(torch.equal(tensor[0], reference[name][4 - num_kept]) for name, tensor in state.items())


def test_results_do_not_depend_on_what_is_kept(digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one task's contexts four tasks give the bytes that they give with room for all."""
    contents, losses = set(), set()
    for cache_bytes in (0, 2**29):
        monkeypatch.setattr(psp, "CACHE_BYTES", cache_bytes)
        result = run_trial(trial(num_tasks=4), data=digits, backbones=backbone.draw, keep_weights=True)
        contents.add(result.contexts)
        losses.add(tuple(row.loss for row in result.rows))
    assert len(contents) == len(losses) == 1


def test_all_contexts_of_p_mnist_fit() -> None:
    """A hundred tasks' rotations of FC256 in single precision, 298 MB, are within what is kept."""
    assert 100 * 4 * (784**2 + 2 * 256**2) < psp.CACHE_BYTES < 2**30


def test_what_a_caller_does_to_a_context_is_its_own_affair() -> None:
    """A state is a copy: changing it does not affect the cached contexts."""
    method = build()
    before = method.start([0])["layer2.rotation"].clone()
    method.start([0])["layer2.rotation"].zero_()
    assert torch.equal(method.start([0])["layer2.rotation"], before)


def test_weights_start_xavier_normal() -> None:
    """N(0, 2/(fan_in + fan_out)) in each layer."""
    problem = ProblemShape(input_shape=(1, 28, 28), num_classes=10, num_tasks=36)
    arrays = PSPSpec().blueprint("FC256", problem, 0).backbone.arrays
    deviations = [(2 / (784 + 256)) ** 0.5, (2 / 512) ** 0.5, (2 / 266) ** 0.5]
    assert [array.parameter for array in arrays] == pytest.approx(deviations, rel=1e-15)
    assert {array.distribution for array in arrays} == {"normal"}
