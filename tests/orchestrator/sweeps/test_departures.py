"""Settings that differ from a method's defaults, and the warning if training is too short for its learning rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.sweeps import bundled
from orchestrator.sweeps.departures import departures, lines, warnings
from orchestrator.sweeps.reading import load_sweep

SweepFile = Callable[..., Path]

TEXT = """\
seeds: [0, 1]
benchmarks: [r-digits, p-digits]
training: {updates_per_task: 250}
methods:
  stl: {scales: [FC16]}
  psp: {scales: [FC16], training: {learning_rate: 0.001}}
  mtl: {scales: [FC16], training: {updates_per_task: 1000}}
  er: {scales: [FC16], settings: {buffer: 20}}
  own: {method: neuromodnet, scales: [FC16, FC32], variants: {plain: {}, pretrained: {settings: {pretrained: true}}}}
"""


def test_the_settings_of_each_value_are_told_once_with_their_methods(sweep_file: SweepFile) -> None:
    """Whatever the numbers of scales, benchmarks and seeds; two ways to say a length are one setting."""
    sweep = load_sweep(sweep_file(TEXT))
    assert list(lines(sweep.cells)) == [
        "not the default: 250 updates per task instead of 1000 updates: stl, psp, own plain, own pretrained",
        "not the default: learning_rate 0.001 instead of 0.0001: psp",
        "not the default: buffer 20 instead of 500: er",
        "not the default: 250 updates per task instead of 1 epoch: er",
        "not the default: pretrained true instead of false: own pretrained",
    ]
    trials = {cell.method: cell.trials[0] for cell in sweep.cells}
    assert departures(trials["mtl"]) == {}
    assert departures(trials["er"]) == {
        "settings.buffer": (20, 500),
        "training.length": ("250 updates", "1 epoch"),
    }


def test_shorter_training_at_the_own_rate_is_warned_of_once(sweep_file: SweepFile) -> None:
    """Not where the rate was set, where training is whole, or where it is longer than the method's own."""
    warning, remedy = warnings(load_sweep(sweep_file(TEXT)).cells)
    assert "2 methods" in warning
    assert "stl (25 % of the updates, rate 0.0001), own (25 % of the updates, rate 0.01)" in warning
    assert "--set 'methods.stl.training.learning_rate=...'" in remedy
    assert warnings(load_sweep(sweep_file(TEXT.replace("updates_per_task: 250", "updates_per_task: 1000"))).cells) == []


def test_a_short_sweep_with_many_methods_has_one_warning() -> None:
    """Methods that learn alike are named together: the quickstart is short on purpose."""
    warning, _ = warnings(load_sweep(bundled.file_of("quickstart")).cells)
    assert "8 methods" in warning
    assert "mtl, stl, psp, supsup (20 % of the updates, rate 0.0001)" in warning
    assert "finetune" not in warning


def test_epochs_and_batches_count_as_updates(sweep_file: SweepFile) -> None:
    """Twelvefold batches are a twelfth of the updates; a stream is learned once, in batches of its own."""
    text = "seeds: [0]\nbenchmarks: [seq-digits]\nmethods: {er: {scales: [FC16], training: {batch_size: 120}}}\n"
    warning, _ = warnings(load_sweep(sweep_file(text)).cells)
    assert "1 method " in warning
    assert "er (10 % of the updates, rate 0.1)" in warning
