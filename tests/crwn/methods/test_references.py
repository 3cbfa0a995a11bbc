"""Each method against an explicit NumPy version: a few updates of one task, forward and backward by hand.

The equations are those of the papers, not of the code: weights W = a (R * c) or R * m are formed for the layer, the
gradients follow by the chain rule, and RMSProp is v <- .99 v + .01 g^2, p <- p - rate g / (sqrt(v) + 1e-8).

Shapes: B examples, I inputs, O outputs, m classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from crwn import backbone, contexts, seeding
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import Datasets
from crwn.data.digits import DIGITS
from crwn.methods import METHODS
from crwn.methods.flynet import FlyNetSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.supsup import SupSupSpec
from crwn.spec import TrainingSpec
from crwn.trial import Finished, run_trial
from crwn.trial_spec import TrialSpec
from tests.crwn.methods.building import plain_surroundings

Matrix = NDArray[np.float64]
Numbers = dict[str, Matrix]
Step = Callable[[Numbers, Matrix, Matrix], tuple[Matrix, Numbers]]

NUM_UPDATES, BATCH_SIZE, RATE = 6, 32, 0.01


def trial(method: object, scale: str) -> TrialSpec:
    return TrialSpec(
        method=method,
        benchmark=RotatedSpec(base="digits", num_tasks=1),
        scale=scale,
        seed=1,
        training=TrainingSpec(learning_rate=RATE, updates_per_task=NUM_UPDATES, batch_size=BATCH_SIZE, dtype="float64"),
    )


def weights(spec: TrialSpec) -> Numbers:
    arrays = backbone.draw(spec.blueprint().backbone).arrays
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def start(spec: TrialSpec) -> Numbers:
    """What task 0 starts from; that it is the same for the engine is tested in the contract of all methods."""
    surroundings = plain_surroundings(
        spec.scale,
        spec.benchmark.problem(),
        backbone=weights(spec),
        seed=spec.seed,
        dtype=torch.float64,
    )
    state = METHODS[spec.method.kind].build(spec.method, surroundings).start([0])
    return {name: tensor.detach().numpy()[0].copy() for name, tensor in state.items()}


def examples(digits: Datasets, part: str) -> tuple[Matrix, Matrix]:
    """Normalised images [N, d] and one-hot labels [N, m] of the upright digits."""
    split = getattr(digits.load("digits"), part)
    return (split.images.reshape(-1, 64) / 255 - DIGITS.mean[0]) / DIGITS.std[0], np.eye(10)[split.labels]


def softmax(logits_Bm: Matrix) -> Matrix:
    powers = np.exp(logits_Bm - logits_Bm.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def loss_of(logits_Bm: Matrix, labels_Bm: Matrix) -> float:
    """The mean cross-entropy in nats."""
    return float(-np.log((softmax(logits_Bm) * labels_Bm).sum(axis=1)).mean())


def accuracy_of(logits_Bm: Matrix, labels_Bm: Matrix) -> float:
    return float((logits_Bm.argmax(axis=1) == labels_Bm.argmax(axis=1)).mean())


def learn(spec: TrialSpec, digits: Datasets, step: Step) -> tuple[Numbers, float, float]:
    """RMSProp over the first batches of the first epoch; gives the numbers learned, mean loss and accuracy."""
    images, labels = examples(digits, "train")
    order = seeding.numpy_generator(spec.seed, "batches", 0, 0).permutation(len(images))
    numbers = start(spec)
    squares = {name: np.zeros_like(value) for name, value in numbers.items()}
    losses, accuracies = [], []
    for update in range(NUM_UPDATES):
        chosen = order[update * BATCH_SIZE : (update + 1) * BATCH_SIZE]
        logits, gradients = step(numbers, images[chosen], labels[chosen])
        losses.append(loss_of(logits, labels[chosen]))
        accuracies.append(accuracy_of(logits, labels[chosen]))
        for name, gradient in gradients.items():
            squares[name] = 0.99 * squares[name] + 0.01 * gradient**2
            numbers[name] = numbers[name] - RATE * gradient / (np.sqrt(squares[name]) + 1e-8)
    return numbers, float(np.mean(losses)), float(np.mean(accuracies))


def check(spec: TrialSpec, digits: Datasets, step: Step) -> tuple[Finished, Numbers]:
    """Compare the engine's curve and test with the reference's; gives both for what is the method's own."""
    result = run_trial(spec, data=digits, backbones=backbone.draw)
    numbers, loss, accuracy = learn(spec, digits, step)
    (row,) = result.rows
    (point,) = row.curve
    assert point.loss == pytest.approx(loss, rel=1e-9)
    assert point.accuracy == pytest.approx(accuracy, abs=1e-12)
    images, labels = examples(digits, "test")
    logits, _ = step(numbers, images, labels)
    assert row.loss == pytest.approx(loss_of(logits, labels), rel=1e-8)
    assert row.accuracy == accuracy_of(logits, labels)
    return result, numbers


def check_kept(result: Finished, numbers: Numbers) -> None:
    kept = contexts.load(result.contexts).tensors
    assert set(kept) == set(numbers)
    for name, tensor in kept.items():
        np.testing.assert_allclose(tensor[0].numpy(), numbers[name], rtol=1e-8, atol=1e-12, err_msg=name)


def modulated_gradients(
    name: str, R_OI: Matrix, numbers: Numbers, input_BI: Matrix, slope_BO: Matrix
) -> tuple[Numbers, Matrix]:
    """Of y = x W^T with W = a (R * c): dW = slope^T x, da = sum dW * R * c, dc = a column sums of dW * R, dx = slope W.

    Returns:
        The gradients of context and strength by name, and that of the input.
    """
    c_I, a = numbers[f"{name}.context"], numbers[f"{name}.strength"]
    weight_slope_OI = slope_BO.T @ input_BI
    own = {
        f"{name}.context": a * (weight_slope_OI * R_OI).sum(axis=0),
        f"{name}.strength": np.asarray((weight_slope_OI * R_OI * c_I).sum()),
    }
    return own, slope_BO @ (a * R_OI * c_I)


def test_neuromodnet(digits: Datasets) -> None:
    """Three modulated layers with ReLU between them: W_l = a_l (R_l * c_l)."""
    spec = trial(NeuroModNetSpec(), "FC12")
    R = weights(spec)

    def step(numbers: Numbers, x_Bd: Matrix, labels_Bm: Matrix) -> tuple[Matrix, Numbers]:
        W = {name: numbers[f"{name}.strength"] * R[name] * numbers[f"{name}.context"] for name in R}
        z1 = x_Bd @ W["layer1"].T
        h1 = np.maximum(z1, 0)
        z2 = h1 @ W["layer2"].T
        h2 = np.maximum(z2, 0)
        logits = h2 @ W["layer3"].T
        slope = (softmax(logits) - labels_Bm) / len(x_Bd)
        gradients3, slope = modulated_gradients("layer3", R["layer3"], numbers, h2, slope)
        gradients2, slope = modulated_gradients("layer2", R["layer2"], numbers, h1, slope * (z2 > 0))
        gradients1, _ = modulated_gradients("layer1", R["layer1"], numbers, x_Bd, slope * (z1 > 0))
        return logits, {**gradients1, **gradients2, **gradients3}

    check_kept(*check(spec, digits, step))


def test_flynet(digits: Datasets) -> None:
    """A fixed encoder with inhibition gamma = 1, and one modulated layer W = a (R * c) that reads it out."""
    spec = trial(FlyNetSpec(), "2d")
    fixed = weights(spec)
    encoder, R = fixed["encoder"], fixed["decoder"]

    def step(numbers: Numbers, x_Bd: Matrix, labels_Bm: Matrix) -> tuple[Matrix, Numbers]:
        z = x_Bd @ encoder.T
        h = np.maximum(z - z.mean(axis=1, keepdims=True), 0)
        logits = h @ (numbers["decoder.strength"] * R * numbers["decoder.context"]).T
        slope = (softmax(logits) - labels_Bm) / len(x_Bd)
        gradients, _ = modulated_gradients("decoder", R, numbers, h, slope)
        return logits, gradients

    check_kept(*check(spec, digits, step))


def smallest_sum(input_BI: Matrix, weight_OI: Matrix) -> float:
    """The absolute value of the smallest sum that is not one of zeros alone."""
    has_terms = np.abs(input_BI) @ np.abs(weight_OI).T > 0
    return float(np.abs(input_BI @ weight_OI.T)[has_terms].min())


def test_supsup(digits: Datasets) -> None:
    """Three masked layers with ReLU between them; scores get the masks' gradients, dm = dW * R, straight through.

    Weights of one magnitude over pixels of 17 grey levels can cancel exactly. Then rounding decides whether a unit is
    on, and no two ways to compute the sum need agree; the seed is one at which that does not happen in training.
    """
    spec = trial(SupSupSpec(), "FC12")
    R = weights(spec)
    smallest_sums: list[float] = []

    def step(numbers: Numbers, x_Bd: Matrix, labels_Bm: Matrix) -> tuple[Matrix, Numbers]:
        W = {name: np.where(numbers[f"{name}.scores"] >= 0, R[name], 0) for name in R}
        z1 = x_Bd @ W["layer1"].T
        h1 = np.maximum(z1, 0)
        z2 = h1 @ W["layer2"].T
        h2 = np.maximum(z2, 0)
        logits = h2 @ W["layer3"].T
        smallest_sums.append(min(smallest_sum(x_Bd, W["layer1"]), smallest_sum(h1, W["layer2"])))
        slope3 = (softmax(logits) - labels_Bm) / len(x_Bd)
        slope2 = (slope3 @ W["layer3"]) * (z2 > 0)
        slope1 = (slope2 @ W["layer2"]) * (z1 > 0)
        slopes = {"layer1": slope1.T @ x_Bd, "layer2": slope2.T @ h1, "layer3": slope3.T @ h2}
        return logits, {f"{name}.scores": slope * R[name] for name, slope in slopes.items()}

    result, numbers = check(spec, digits, step)
    assert min(smallest_sums[:NUM_UPDATES]) > 1e-9, "a sum cancels: choose another seed"
    kept = contexts.load(result.contexts).tensors
    begun = start(spec)
    for name in R:
        mask = numbers[f"{name}.scores"] >= 0
        assert (mask != (begun[f"{name}.scores"] >= 0)).any(), "no mask changed: the test would hold nothing"
        bits = np.packbits(mask.reshape(-1), bitorder="little")
        assert kept[f"{name}.mask"][0].numpy().tolist() == bits.tolist()
