"""Test and benchmark everything on a GPU, in at most four minutes.

    make gpu        CRWN_DATA=... may hold MNIST; otherwise, random images of its size are used

Needs torch, crwn and its numerical dependencies; neither Ray nor MLflow. Every part is written to gpu.json and gpu.md
when done, and is not repeated by the next call. The parts:

- contract: every case of tests/methods/, small: equal bytes when repeated and when resumed, tasks alone
  and side by side;
- golden: every trace of tests/golden/, within the CPU tolerances;
- waits: every case while torch refuses to wait for the GPU (`torch.cuda.set_sync_debug_mode`) within batches and
  updates, except at points of a learning curve;
- speed: seconds per task of 1000 batches, and the share of the highest rate that a product reached here.

Exits with 1 if something failed, with 3 without a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch

import crwn.engine
from crwn import backbone
from crwn.batches import Lanes
from crwn.benchmarks import PRESETS
from crwn.data import BASE_SETS, DataError, Datasets, datasets
from crwn.data.base import ImageSet, ImageSplit
from crwn.engine import Engine
from crwn.events import ResumePoint, TaskRow
from crwn.groups import Group
from crwn.methods import METHODS
from crwn.trial import Allowance, Finished, decide_numerics, run_trial
from crwn.trial_spec import TrialSpec

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
MINUTES = 4.0
UPDATES = 1000
"""Of a task, to which all seconds are scaled."""
NO_GPU = 3
"""Exit code without a GPU."""
BLOCKS = 120
"""Updates in which nothing may wait: two whole blocks of a curve, and a part of one."""
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What is timed.

    Attributes:
        method: with its own settings.
        scale: of the network.
        preset: the benchmark.
        updates: number of timed updates, after a tenth as many to warm up.
        num_tasks: of the benchmark, learned together if the method can.
        dtype: of products.
    """

    method: str
    scale: str
    preset: str = "r-mnist"
    updates: int = 300
    num_tasks: int = 36
    dtype: Literal["float32", "bfloat16"] = "float32"

    @property
    def name(self) -> str:
        """In tables."""
        return f"{self.method} {self.scale} {self.dtype}"


SPEEDS = [
    Speed(method="neuromodnet", scale="FC256"),
    Speed(method="neuromodnet", scale="FC1024", updates=200),
    Speed(method="neuromodnet", scale="FC4096", updates=100),
    Speed(method="supsup", scale="FC256"),
    Speed(method="flynet", scale="10d", updates=100),
    Speed(method="derpp", scale="FC100", preset="seq-mnist", updates=500, num_tasks=2),
    Speed(method="neuromodnet", scale="FC1024", updates=200, dtype="bfloat16"),
    Speed(method="supsup", scale="FC1024", updates=100),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the missing parts; returns the exit code."""
    parser = argparse.ArgumentParser(description="Test and benchmark everything on a GPU.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for gpu.json and gpu.md (default: perf/)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="no part begins later (default: 4)")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)  # cpu: to test the script itself
    parser.add_argument("--only", nargs="*", help=argparse.SUPPRESS)  # parts whose names begin so
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("expected a GPU that torch can use, found none; nothing was measured", file=sys.stderr)
        return NO_GPU
    sys.path.insert(0, str(ROOT))  # the cases, which import nothing but crwn
    asked.out.mkdir(parents=True, exist_ok=True)
    report = Report(asked.out, machine(asked.device))
    ends_at = time.monotonic() + 60 * asked.minutes
    for name, part in parts(asked.device, tiny=asked.tiny):
        if asked.only is not None and not name.startswith(tuple(asked.only)):
            continue
        if report.has(name):
            print(f"{name}: done before", flush=True)
        elif time.monotonic() > ends_at:
            print(f"{name}: left for the next call, since the {asked.minutes:g} minutes are over", flush=True)
        else:
            report.add(name, part)
    return int(report.has_failures)


class Report:
    """The findings so far, as JSON and as a table, written after every part.

    Args:
        folder: for both files.
        about: the machine; findings from another one are discarded.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self._json, self._table = folder / "gpu.json", folder / "gpu.md"
        self._found: dict[str, Any] = {"machine": about, "parts": {}}
        if self._json.exists():
            before = json.loads(self._json.read_text(encoding="utf-8"))
            if before["machine"] == about:
                self._found = before

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """By name: seconds, findings, and failures."""
        return self._found["parts"]

    @property
    def has_failures(self) -> bool:
        """Of any part."""
        return any(part["failed"] for part in self.parts.values())

    def has(self, name: str) -> bool:
        """Whether a part is done, and nothing in it failed."""
        return name in self.parts and not self.parts[name]["failed"]

    def add(self, name: str, part: Callable[[], dict[str, Any]]) -> None:
        """Run a part and record it; an exception becomes its finding."""
        started = time.perf_counter()
        found: dict[str, Any] = {}
        failed = ""
        try:
            found = part()
        except Exception as error:  # noqa: BLE001 (the other parts are worth having)
            failed = f"{type(error).__name__}: {error}"
        self.parts[name] = {"seconds": round(time.perf_counter() - started, 2), "found": found, "failed": failed}
        _write(self._json, json.dumps(self._found, indent=1) + "\n")
        _write(self._table, "\n".join(table(self._found)) + "\n")
        print(f"{name}: {failed or found or 'as it should be'}", flush=True)


def _write(file: Path, text: str) -> None:
    """Write atomically."""
    beside = file.with_suffix(".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


def table(found: dict[str, Any]) -> Iterator[str]:
    """The lines of gpu.md."""
    yield ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    yield ""
    yield "| part | seconds | found |"
    yield "| --- | --- | --- |"
    for name, part in found["parts"].items():
        text = part["failed"] or ", ".join(f"{key} {value}" for key, value in part["found"].items())
        words = " ".join(("FAILED " * bool(part["failed"]) + text).replace("|", "/").split())
        yield f"| {name} | {part['seconds']} | {words[:500]} |"


def machine(device: Device) -> dict[str, Any]:
    """The machine of the figures."""
    name = torch.cuda.get_device_name(0) if device == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"device": name, "torch": torch.__version__, "Python": platform.python_version()}


def parts(device: Device, *, tiny: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """All parts in their order, by name."""
    from tests.golden import record
    from tests.methods import CASES

    for name in CASES:
        yield f"contract {name}", functools.partial(contract, name, device)
    for name in CASES:
        if (record.FOLDER / f"{name}.json").exists():
            yield f"golden {name}", functools.partial(golden, name, device)
    for name in CASES:
        yield f"waits {name}", functools.partial(waits, name, device, 4 if tiny else BLOCKS)
    rates = functools.cache(functools.partial(peak_rates, device, tiny=tiny))
    for speed in SPEEDS:
        chosen = dataclasses.replace(speed, updates=2, num_tasks=2, scale="1d" if speed.method == "flynet" else "FC8")
        yield f"speed {speed.name}", functools.partial(seconds, chosen if tiny else speed, device, rates)


# Checks


def contract(name: str, device: Device) -> dict[str, Any]:
    """A small float64 trial gives equal results when repeated, when resumed, and for tasks alone or together."""
    spec = small(name, updates=6)
    first, points = learn(spec, device)
    inside = points[len(points) // 2]
    for words, how in (("run again", {}), ("gone on with", {"resume_from": inside.content})):
        other, _ = learn(spec, device, **how)
        if results(first) != results(other) or first.contexts != other.contexts:
            raise AssertionError(f"{words}: expected equal bytes, given {farthest(first, other):.1e} between losses")
    found = {"resume points": len(points)}
    if spec.blueprint().grouping == "any":
        alone, _ = learn(spec, device, group_size=1)
        apart = farthest(first, alone)
        if apart > 1e-6:
            raise AssertionError(f"tasks alone: expected losses within 1e-6, given {apart:.1e}")
        found["alone"] = f"{apart:.0e}"
    return found


def golden(name: str, device: Device) -> dict[str, Any]:
    """The recorded trace is reproduced within its tolerances."""
    from tests.golden import record
    from tests.methods import CASES

    recorded = json.loads((record.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    found = record.trace(name, device)
    if found["fingerprint"] != recorded["fingerprint"]:
        raise AssertionError("expected the frozen weights of the trace, given different ones")
    tolerances = CASES[name].tolerances
    apart = {"loss": 0.0, "accuracy": 0.0}
    for part in set(recorded) - {"spec", "fingerprint"}:
        for values, expected in zip(found[part], recorded[part], strict=True):
            for key, number in expected.items():
                kind = key.rpartition("_")[2]
                apart[kind] = max(apart[kind], abs(values[key] - number))
    if apart["loss"] > tolerances.loss or apart["accuracy"] > tolerances.accuracy:
        raise AssertionError(f"expected the trace within {tolerances}, given {apart} from it")
    return {kind: f"{distance:.0e}" for kind, distance in apart.items()}


def waits(name: str, device: Device, updates: int) -> dict[str, Any]:
    """No batch and no update waits for the GPU, except at points of a learning curve."""
    with refused_waits(device):
        learn(small(name, updates=updates), device)
    return {}


@contextmanager
def refused_waits(device: Device) -> Iterator[None]:
    """Have torch raise where a batch or an update waits for the GPU."""

    def under(mode: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            with debug_mode(mode) if device == "cuda" else nullcontext():
                return function(*arguments, **keywords)

        return call

    with (
        mock.patch.object(Lanes, "batch", under("error", Lanes.batch)),
        mock.patch.object(Engine, "_update", under("error", Engine._update)),
        mock.patch.object(Group, "_close_block", under("default", Group._close_block)),
    ):
        yield


@contextmanager
def debug_mode(mode: str) -> Iterator[None]:
    """What torch does where the GPU is waited for."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def small(name: str, *, updates: int) -> TrialSpec:
    """A case in float64 on digits."""
    from tests.methods import CASES

    case = CASES[name].under_contract
    training = dataclasses.replace(
        case.trial().training,
        learning_rate=case.learning_rate,
        updates_per_task=updates,
        batch_size=32,
        dtype="float64",
    )
    return case.trial(training=training)


def learn(
    spec: TrialSpec, device: Device, *, group_size: int | None = None, resume_from: bytes | None = None
) -> tuple[Finished, list[ResumePoint]]:
    """A trial with a resume point after every update."""
    points: list[ResumePoint] = []
    numerics = decide_numerics(spec, Allowance(device=device, max_group_size=group_size))
    with mock.patch.multiple(crwn.engine, MIN_RESUME_SECONDS=0.0, MAX_RESUME_SECONDS=0.0):
        finished = run_trial(
            spec,
            data=Datasets(BASE_SETS, roots=()),
            backbones=backbone.draw,
            allowance=Allowance(device=device),
            numerics=dataclasses.replace(numerics, kernel="plain"),
            resume_from=resume_from,
            keep_weights=True,
            on_event=lambda event: points.append(event) if isinstance(event, ResumePoint) else None,
        )
    return finished, points


def results(finished: Finished) -> list[TaskRow]:
    """All rows without times."""

    def timeless(row: TaskRow) -> TaskRow:
        curve = tuple(dataclasses.replace(point, time=0.0) for point in row.curve)
        return dataclasses.replace(row, train_seconds=None, eval_seconds=0.0, tested=0.0, curve=curve)

    return [timeless(row) for row in finished.rows]


def farthest(one: Finished, other: Finished) -> float:
    """The largest distance between two losses of the same test."""
    return max(abs(a.loss - b.loss) for a, b in zip(one.rows, other.rows, strict=True))


# Speed


def seconds(speed: Speed, device: Device, rates: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """Seconds per task of 1000 batches, and the share of the highest rate."""
    run(speed, device, max(1, speed.updates // 10))
    finished = run(speed, device, speed.updates)
    taken = [row.train_seconds for row in finished.rows if row.train_seconds is not None]
    per_task = statistics.fmean(taken) / speed.updates * UPDATES
    spec = trial(speed, speed.updates)
    operations = 2 * spec.multiply_adds_per_update() * UPDATES
    return {
        "seconds per task": float(f"{per_task:.3g}"),
        "share of the peak": f"{operations / per_task / rates()[speed.dtype]:.1%}",
        "peak, TFLOP/s": round(rates()[speed.dtype] / 1e12, 1),
        "tasks at once": finished.numerics.group_size,
        "memory, MiB": round(finished.peak_memory / 2**20),
        "images": "MNIST" if has_mnist() else "made up",
    }


def run(speed: Speed, device: Device, updates: int) -> Finished:
    """A trial."""
    spec = trial(speed, updates)
    return run_trial(spec, data=data(), backbones=_draw, allowance=Allowance(device=device))


_draw = functools.cache(backbone.draw)


def trial(speed: Speed, updates: int) -> TrialSpec:
    """With this many updates per task."""
    method, benchmark = METHODS[speed.method].spec(), PRESETS[speed.preset]
    sizes = {"num_tasks": speed.num_tasks} if speed.preset == "r-mnist" else {"first": speed.num_tasks}
    training = method.training(speed.scale)
    return TrialSpec(
        method=method,
        benchmark=dataclasses.replace(benchmark, **sizes),
        scale=speed.scale,
        seed=0,
        training=dataclasses.replace(training, updates_per_task=updates, epochs_per_task=0, dtype=speed.dtype),
    )


def has_mnist() -> bool:
    """Whether this machine has the images."""
    try:
        return datasets().find("mnist") is not None
    except DataError:
        return False


@functools.cache
def data() -> Any:
    """MNIST, or images of its size."""
    return datasets() if has_mnist() else MadeUp()


class MadeUp:
    """Random images of a base set's size; the content does not affect the time."""

    def load(self, name: str) -> ImageSet:
        """Of a base set."""
        base, random = BASE_SETS[name], np.random.default_rng(0)

        def split(count: int) -> ImageSplit:
            labels = np.arange(count) % base.num_classes
            return ImageSplit(images=random.integers(0, 256, (count, *base.image_shape), dtype=np.uint8), labels=labels)

        return ImageSet(train=split(base.num_train), test=split(base.num_test))


def peak_rates(device: Device, *, tiny: bool) -> dict[str, float]:
    """Operations per second of a large matrix product, by dtype; the best of many."""
    side = 64 if tiny else 8192
    return {name: rate(torch.ones(side, side, device=device, dtype=getattr(torch, name))) for name in PEAKS}


PEAKS = ("float32", "bfloat16")


def rate(square: torch.Tensor) -> float:
    """Of a product of a matrix with itself."""

    def once() -> float:
        started = time.perf_counter()
        square @ square
        if square.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return 2 * len(square) ** 3 / min(once() for _ in range(10))


if __name__ == "__main__":
    sys.exit(main())
