"""Samples of a trial's use of its machine, and when they are taken."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import psutil
import pytest
import torch

from orchestrator.execution.sampling import SystemSampler
from orchestrator.store.rows import Sample
from orchestrator.store.schemas import SYSTEM_SCHEMA
from orchestrator.store.store import Store

GPU_COLUMNS = {"gpu_percent", "gpu_memory_bytes", "gpu_power_watts"}


class Clock:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def sampled_after(sampler: SystemSampler, clock: Clock, moments: list[float]) -> list[int]:
    """How many samples there are after the sampler was asked at each of these moments, since the clock began."""
    numbers = []
    for moment in moments:
        clock.now = 1000.0 + moment
        sampler.sample_if_due()
        numbers.append(len(sampler.rows))
    return numbers


def test_samples_are_due_after_one_second_and_then_every_ten() -> None:
    """However often it is asked; a long silence is one sample, and the next is ten seconds later."""
    clock = Clock()
    sampler = SystemSampler("a", use_gpu=False, clock=clock)
    moments = [0.0, 0.9, 1.0, 1.1, 10.9, 11.0, 20.9, 50.0, 50.1, 59.9, 60.0]
    assert sampled_after(sampler, clock, moments) == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4]


def test_a_sample_may_be_taken_at_any_time() -> None:
    """As at a trial's end, whether one is due or not; the next is due ten seconds after it."""
    clock = Clock()
    sampler = SystemSampler("a", use_gpu=False, clock=clock)
    clock.now += 0.5
    sampler.sample()
    assert len(sampler.rows) == 1
    assert sampled_after(sampler, clock, [1.0, 10.4, 10.5]) == [1, 1, 2]


def test_earlier_samples_stay_before_the_new_ones() -> None:
    """As they were, in a list of the sampler's own."""
    earlier = [Sample(trial_id="a", time=1.0), Sample(trial_id="a", time=2.0)]
    sampler = SystemSampler("a", earlier, use_gpu=False)
    assert sampler.rows == earlier
    sampler.sample()
    assert sampler.rows[:2] == [Sample(trial_id="a", time=1.0), Sample(trial_id="a", time=2.0)]
    assert len(sampler.rows) == 3
    assert len(earlier) == 2


def test_a_sample_says_what_is_used() -> None:
    """Of this process, which has been computing, and of its machine; when it was taken; nothing of a GPU."""
    sampler = SystemSampler("a", use_gpu=False)
    until = time.process_time() + 0.1
    while time.process_time() < until:
        math.sqrt(2.0)
    before = time.time()
    sampler.sample()
    (sample,) = sampler.rows
    assert set(sample.columns()) == set(SYSTEM_SCHEMA.names)
    row = {name: value for name, value in sample.columns().items() if value is not None}
    assert set(row) == set(SYSTEM_SCHEMA.names) - GPU_COLUMNS
    assert row["trial_id"] == "a"
    assert before <= row["time"] <= time.time()
    assert all(type(value) is float and math.isfinite(value) for name, value in row.items() if name != "trial_id")
    total = psutil.virtual_memory().total
    assert 10e6 < row["process_memory_bytes"] < total  # an interpreter with torch is over ten megabytes
    assert 10e6 < row["machine_memory_bytes"] < total
    # Alone on the machine this would be 100; beside others less, and in ticks of 10 ms a little more.
    assert 0 < row["process_cpu_percent"] <= 110 * (os.cpu_count() or 1)
    assert 0 <= row["machine_cpu_percent"] <= 100


def test_without_a_gpu_its_columns_are_null(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is one that the trial does not compute on, which would tell."""
    for name in ("utilization", "device_memory_used", "power_draw"):
        monkeypatch.setattr(torch.cuda, name, lambda: 1)
    sampler = SystemSampler("a", use_gpu=False)
    sampler.sample()
    store.unfinished.write_resume("a", b"...", [], sampler.rows)
    _, (sample,) = store.so_far("a")
    assert {name for name, value in sample.columns().items() if value is None} == GPU_COLUMNS


def test_a_gpu_is_sampled_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its use in percent, its memory in bytes, its power in watts, of which torch gives thousandths."""
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 37)
    monkeypatch.setattr(torch.cuda, "device_memory_used", lambda: 5_000_000_000)
    monkeypatch.setattr(torch.cuda, "power_draw", lambda: 250_500)
    sampler = SystemSampler("a", use_gpu=True)
    sampler.sample()
    store.unfinished.write_resume("a", b"...", [], sampler.rows)
    _, (sample,) = store.so_far("a")
    assert (sample.gpu_percent, sample.gpu_memory_bytes, sample.gpu_power_watts) == (37.0, 5e9, 250.5)


@pytest.mark.parametrize("silent", ["utilization", "device_memory_used", "power_draw"])
def test_what_a_driver_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    """A share of a GPU lacks some figures; the others are sampled, and the trial continues."""

    class NotSupportedError(Exception):
        """As NVML's own errors, which derive from nothing closer."""

    def fail() -> Any:
        raise NotSupportedError

    columns = {"utilization": "gpu_percent", "device_memory_used": "gpu_memory_bytes", "power_draw": "gpu_power_watts"}
    for name in columns:
        monkeypatch.setattr(torch.cuda, name, fail if name == silent else lambda: 1)
    sampler = SystemSampler("a", use_gpu=True)
    sampler.sample()
    assert {name for name in GPU_COLUMNS if getattr(sampler.rows[0], name) is None} == {columns[silent]}
