"""What a trial uses of its machine, sampled between its events: a row of the store's `system` records each time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

import psutil
import torch

from orchestrator.store.rows import Sample

SAMPLE_SECONDS = 10.0
"""Between two samples; the first comes after one second, and a trial's end is always one."""

FIRST_SAMPLE_SECONDS = 1.0


class SystemSampler:
    """Collects samples of this process and its machine; no thread, `sample_if_due` is called often enough.

    Args:
        trial_id: whose samples these are.
        earlier: samples of the trial's earlier attempts.
        use_gpu: whether the trial computes on torch's current GPU.
        clock: seconds, for when a sample is due.
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
        # Shares of time are those since the last call; these two calls begin the first interval.
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
    """The whole GPU's use, other processes' included; what its driver does not tell is left out."""
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
