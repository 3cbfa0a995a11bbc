"""Imports that no linter sees: what comes along at start-up, and modules that are imported lazily or by name.

A fresh process shows what an import costs, through all that it imports in turn. The source shows who asked for it, also
in `LazyModule("torch")` and `import_module("ray")`. Who may import whom else is in pyproject.toml, for import-linter.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import crwn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]

TYPE_CHECKING_NAMES = ("TYPE_CHECKING", "typing.TYPE_CHECKING")

# What crwn must never know: it learns one trial and reports through `on_event`.
FORBIDDEN_IN_CRWN = ("orchestrator", "ray", "mlflow", "pydantic", "pandas")

# What must not come along with a module that is imported. A process imports the modules of a list in turn, and what
# comes along with one is there for all after it: the most forbidding ones are first.
LIGHT_IN_CRWN = {
    "crwn": ("torch", "numpy", *FORBIDDEN_IN_CRWN),
    "crwn.spec": ("torch", *FORBIDDEN_IN_CRWN),
    "crwn.trial_spec": ("torch", *FORBIDDEN_IN_CRWN),
    "crwn.methods": ("torch", *FORBIDDEN_IN_CRWN),
    "crwn.benchmarks": ("torch", *FORBIDDEN_IN_CRWN),
    "crwn.testing": ("torch", *FORBIDDEN_IN_CRWN),
    "crwn.trial": FORBIDDEN_IN_CRWN,
}
LIGHT_IN_ORCHESTRATOR = {
    "orchestrator.api": ("torch", "ray", "mlflow", "matplotlib", "pandas", "pyarrow", "pydantic"),
    "orchestrator.cli": ("torch", "ray", "mlflow", "matplotlib", "pandas", "pyarrow", "pydantic"),
    "orchestrator.data_sets": ("torch", "ray", "mlflow", "matplotlib", "pandas", "pyarrow", "sklearn"),
    "orchestrator.tracking.ui": ("torch", "ray", "mlflow", "sqlalchemy", "matplotlib", "pandas", "pyarrow"),
    "orchestrator.tracking.following": ("torch", "ray", "mlflow", "sqlalchemy", "matplotlib", "pandas"),
    "orchestrator.execution.running": ("torch", "ray", "mlflow", "sqlalchemy", "matplotlib"),
    "orchestrator.report.tables": ("torch", "ray", "mlflow", "sqlalchemy", "matplotlib"),
    "orchestrator.tracking.projection": ("torch", "ray", "mlflow", "matplotlib.pyplot"),  # pyplot looks for windows
}

# Imports the modules of such a list; `said` has for each which of the names that must not come along are there after
# it, and through which files they came.
IMPORT_IN_TURN = """
import importlib, json, pkgutil, sys, traceback

light, barred = json.loads(sys.argv[1]), json.loads(sys.argv[2])
ways = {}

class Recorder:
    def find_spec(self, name, path=None, target=None):
        if any(name in forbidden for forbidden in light.values()):
            frames = traceback.extract_stack()[1:-1]
            ways[name] = [f"{f.filename}:{f.lineno}" for f in frames if "importlib" not in f.filename]

sys.meta_path.insert(0, Recorder())
said = {}
for entry, forbidden in light.items():
    importlib.import_module(entry)
    said[entry] = {name: ways.get(name, []) for name in forbidden if name in sys.modules}
"""

SAY = """
print(json.dumps(said))
"""

# Makes what crwn must not know unimportable, learns a small trial and imports all of crwn. Third parties cope with a
# missing pandas (scikit-learn loads it where it finds it), so only crwn's own need fails.
LEARN_AND_IMPORT_ALL = """
sys.modules.update(dict.fromkeys(barred))
import crwn
from crwn import backbone
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import BASE_SETS, Datasets
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.spec import TrainingSpec
from crwn.trial_spec import TrialSpec
from crwn.trial import run_trial

spec = TrialSpec(
    method=NeuroModNetSpec(),
    benchmark=RotatedSpec(base="digits", num_tasks=2),
    scale="FC8",
    seed=0,
    training=TrainingSpec(learning_rate=0.01, updates_per_task=2),
)
run_trial(spec, data=Datasets(BASE_SETS, roots=()), backbones=backbone.draw)
said["compiler"] = "torch._dynamo" in sys.modules

said["modules"] = []
for module in pkgutil.walk_packages(crwn.__path__, "crwn."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
        said["modules"].append(module.name)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported name: `from crwn import nn` imports `crwn.nn`."""

    name: str
    line: int
    at_import: bool  # neither inside a function nor for the type checker alone


def run_fresh(script: str, light: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Run Python code in a new process in the project's root; returns what its last line says in JSON."""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(light), json.dumps(FORBIDDEN_IN_CRWN)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.fixture(scope="module")
def in_fresh_processes() -> dict[str, Any]:
    """What two new processes say that import crwn and the orchestrator."""
    return {
        **run_fresh(IMPORT_IN_TURN + LEARN_AND_IMPORT_ALL + SAY, LIGHT_IN_CRWN),
        **run_fresh(IMPORT_IN_TURN + SAY, LIGHT_IN_ORCHESTRATOR),
    }


def is_within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or lies inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@functools.cache
def imports_of(source: str, module: str, *, is_package: bool = False) -> tuple[Import, ...]:
    """All that the source of a module imports, wherever it does so, with relative names resolved."""
    package = module if is_package else module.rpartition(".")[0]
    return tuple(_imports(ast.parse(source), package, at_import=True))


def _imports(node: ast.AST, package: str, *, at_import: bool) -> Iterator[Import]:
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.Call)):
        is_lazy = isinstance(node, ast.Call) and _called(node) == "LazyModule"
        for name in _names(node, package):
            yield Import(name=name, line=node.lineno, at_import=at_import and not is_lazy)

    is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) in TYPE_CHECKING_NAMES
    for field, value in ast.iter_fields(node):
        # Of `if TYPE_CHECKING` only the first branch is for the type checker; the other one runs.
        runs = at_import and not is_function and not (is_for_types and field == "body")
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _imports(child, package, at_import=runs)


def _names(node: ast.Import | ast.ImportFrom | ast.Call, package: str) -> list[str]:
    """The full names that a statement imports, or a call such as `import_module("ray")`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        return [f"{origin}.{alias.name}" for alias in node.names]
    if _called(node) in ("import_module", "__import__", "LazyModule"):
        given = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
        return [importlib.util.resolve_name(name, package) for name in given if isinstance(name, str)]
    return []


def _called(call: ast.Call) -> str:
    """The last part of the called function's name: `load` of `library.load(...)`."""
    return ast.unparse(call.func).rpartition(".")[2]


def offences(pattern: str, is_offence: Callable[[Path, Import], bool]) -> list[str]:
    """The imports that break a rule, in the files that a pattern finds: `file:line imports name`."""
    files = sorted(ROOT.glob(pattern))
    assert files, f"no file matches {pattern}: this test would hold nothing"
    found = []
    for file in files:
        path = file.relative_to(ROOT)
        parts = path.with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        found += [
            f"{path.as_posix()}:{item.line} imports {item.name}"
            for item in imports_of(file.read_text(encoding="utf-8"), module, is_package=is_package)
            if is_offence(path, item)
        ]
    return found


@pytest.mark.parametrize("entry", [*LIGHT_IN_CRWN, *LIGHT_IN_ORCHESTRATOR])
def test_an_import_brings_no_heavy_library(entry: str, in_fresh_processes: dict[str, Any]) -> None:
    """Reading a sweep does not cost torch's seconds, and `crwn --help` loads only what it needs."""
    assert in_fresh_processes[entry] == {}


def test_a_trial_does_not_import_torchs_compiler(in_fresh_processes: dict[str, Any]) -> None:
    """It would cost every process that learns seconds; torch's optimiser classes bring it along."""
    assert in_fresh_processes["compiler"] is False


def test_crwn_imports_without_the_libraries_it_must_not_know(in_fresh_processes: dict[str, Any]) -> None:
    """All of crwn can be imported where the orchestrator and its libraries cannot."""
    assert "crwn.trial" in in_fresh_processes["modules"]


def test_crwn_never_imports_the_orchestrator_or_its_libraries() -> None:
    """No file of crwn imports the orchestrator or its libraries, not even for the type checker, but two.

    One fills the orchestrator's stores, for tests: it imports that in its functions, and nothing else of the list. The
    package itself names the Python interface for type checkers, and imports it when one of its names is first used.
    """

    def is_offence(path: Path, item: Import) -> bool:
        if path.as_posix() == "crwn/testing.py" and not item.at_import:
            return is_within(item.name, *FORBIDDEN_IN_CRWN) and not is_within(item.name, "orchestrator")
        if path.as_posix() == "crwn/__init__.py" and not item.at_import:
            return is_within(item.name, *FORBIDDEN_IN_CRWN) and not is_within(item.name, "orchestrator.api")
        return is_within(item.name, *FORBIDDEN_IN_CRWN, "crwn.testing")

    assert offences("crwn/**/*.py", is_offence) == []
    assert {module for module, _ in crwn._PLACES.values()} == {"crwn.contexts", "crwn.trial_spec", "orchestrator.api"}


@pytest.mark.parametrize(
    "pattern",
    [
        "crwn/spec.py",
        "crwn/trial_spec.py",
        "crwn/methods/__init__.py",
        "crwn/benchmarks/__init__.py",
        "orchestrator/cli/*.py",
    ],
)
def test_what_is_imported_first_names_torch_only_for_the_type_checker(pattern: str) -> None:
    """Where every command begins, torch is imported in a function, lazily, or under TYPE_CHECKING."""
    assert offences(pattern, lambda _, item: item.at_import and is_within(item.name, "torch", "torchvision")) == []


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        (
            "ray",
            (
                "orchestrator/execution/ray_actors.py",
                "orchestrator/execution/ray_cluster.py",
                "orchestrator/execution/ray_tune.py",
                "orchestrator/execution/backbones.py",
                "orchestrator/cluster/dashboard.py",
                "orchestrator/cluster/jobs.py",
                "orchestrator/cluster/submitting.py",
            ),
        ),
        (
            "mlflow",
            (
                "orchestrator/serving/crwn_model.py",
                "orchestrator/serving/models.py",
                "orchestrator/serving/registering.py",
                "orchestrator/tracking/connecting.py",
            ),
        ),
    ],
)
def test_a_library_of_the_cluster_has_its_files(library: str, allowed: tuple[str, ...]) -> None:
    """Ray and MLflow can be replaced, because only the files listed here know them."""

    def is_elsewhere(path: Path, item: Import) -> bool:
        return is_within(item.name, library) and path.as_posix() not in allowed

    assert offences("orchestrator/**/*.py", is_elsewhere) == []


def test_rays_job_client_is_imported_by_files_that_only_the_command_line_imports() -> None:
    """Jobs come and go with a cluster: nothing that computes or keeps knows of them, nor pays for their client."""
    knowing = ("dashboard", "jobs", "submitting")

    def is_elsewhere(path: Path, item: Import) -> bool:
        if path.as_posix() in [f"orchestrator/cluster/{name}.py" for name in knowing]:
            return False
        if is_within(item.name, *(f"orchestrator.cluster.{name}" for name in knowing)):
            return path.parent.as_posix() != "orchestrator/cli" or item.at_import
        return is_within(item.name, "ray.job_submission", "ray.dashboard")

    assert offences("orchestrator/**/*.py", is_elsewhere) == []


def test_tracking_is_imported_by_its_process_and_by_sync_alone() -> None:
    """Only following.py imports tracker.py, and inside functions: a driver never pays for MLflow's import."""

    def is_elsewhere(path: Path, item: Import) -> bool:
        is_there = path.as_posix() == "orchestrator/tracking/following.py" and not item.at_import
        return is_within(item.name, "orchestrator.tracking.tracker") and not is_there

    assert offences("orchestrator/**/*.py", is_elsewhere) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import ray.tune as t", [("ray.tune", True)]),
        ("from crwn import nn, methods", [("crwn.nn", True), ("crwn.methods", True)]),
        ("from . import flynet", [("crwn.methods.flynet", True)]),
        ("from .flynet import FlyNet", [("crwn.methods.flynet.FlyNet", True)]),
        ("from ..nn import masked", [("crwn.nn.masked", True)]),
        ("def load():\n    import torch", [("torch", False)]),
        (
            "class A:\n    try:\n        import torch\n    except ImportError:\n        pass",
            [("torch", True)],
        ),
        ("if TYPE_CHECKING:\n    import torch\nelse:\n    import numpy", [("torch", False), ("numpy", True)]),
        ("import typing\nif typing.TYPE_CHECKING:\n    import ray", [("typing", True), ("ray", False)]),
        ("torch = LazyModule('torch')", [("torch", False)]),
        ("importlib.import_module('ray')", [("ray", True)]),
        ("load = lambda: __import__('ray')", [("ray", False)]),
        ("import_module('.flynet', __package__)", [("crwn.methods.flynet", True)]),
    ],
)
def test_every_way_to_import_is_found(source: str, expected: list[tuple[str, bool]]) -> None:
    """The reader of the source sees relative, lazy, conditional and dynamic imports, and when they happen."""
    found = [(item.name, item.at_import) for item in imports_of(source, "crwn.methods.psp")]
    assert found == expected


def test_a_package_resolves_its_relative_imports_from_itself() -> None:
    """In `crwn/methods/__init__.py` one dot is crwn.methods, as in its files."""
    found = imports_of("from .protocol import Method", "crwn.methods", is_package=True)
    assert [item.name for item in found] == ["crwn.methods.protocol.Method"]
