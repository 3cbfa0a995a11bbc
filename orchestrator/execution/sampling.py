"""Samples a trial's system usage between its events, one row of the store's `system` records at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

import psutil
import torch

from orchestrator.store.rows import Sample

SAMPLE_SECONDS = 10.0
"""Seconds between two samples; the first is taken after one second, and the last at the trial's end."""

FIRST_SAMPLE_SECONDS = 1.0


class SystemSampler:
    """Collects samples of this process and its machine, without a thread: `sample_if_due` is called often enough.

    Args:
        trial_id: the trial.
        earlier: samples of the trial's earlier attempts.
        use_gpu: whether the trial runs on torch's current GPU.
        clock: returns the time in seconds, to schedule samples.
    """

    def __init__(
        self,
        trial_id: str,
        earlier: Iterable[Sample] = (),
        *,
        use_gpu: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rows = list(earlier)
        self._trial_id = trial_id
        self._use_gpu = use_gpu
        self._clock = clock
        self._process = psutil.Process()
        # CPU percentages cover the time since the last call; these two calls start the first interval.
        self._process.cpu_percent()
        psutil.cpu_percent()
        self._due = clock() + FIRST_SAMPLE_SECONDS

    def sample_if_due(self) -> None:
        """Take a sample if the last one is old enough."""
        if self._clock() >= self._due:
            self.sample()

    def sample(self) -> None:
        """Take a sample now."""
        self._due = self._clock() + SAMPLE_SECONDS
        gpu = _gpu() if self._use_gpu else {}
        self.rows.append(
            Sample(
                trial_id=self._trial_id,
                time=time.time(),
                process_cpu_percent=self._process.cpu_percent(),
                process_memory_bytes=float(self._process.memory_info().rss),
                machine_cpu_percent=psutil.cpu_percent(),
                machine_memory_bytes=float(psutil.virtual_memory().used),
                **gpu,
            )
        )


def _gpu() -> dict[str, float]:
    """Usage of the whole GPU, including other processes; values that its driver does not report are left out."""
    found: dict[str, float] = {}
    asked: dict[str, Callable[[], float]] = {
        "gpu_percent": torch.cuda.utilization,
        "gpu_memory_bytes": torch.cuda.device_memory_used,
        "gpu_power_watts": lambda: torch.cuda.power_draw() / 1000,  # from milliwatts
    }
    for name, ask in asked.items():
        with contextlib.suppress(Exception):  # NVML's own errors: a share of a GPU, a container without its driver
            found[name] = float(ask())
    return found
