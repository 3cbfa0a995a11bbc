"""No file of the project reads what could run code: held in the source, so that nothing new slips in."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

RUNNING_WHEN_READ = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
"""Modules whose formats run code when they are read."""

EXCEPTION = "crwn/data/layouts.py"
"""Reads the pickled caches of miniImageNet by an unpickler that calls nothing; tests/crwn/data/test_layouts.py."""

RUNNING = {"eval", "exec", "os.system", "os.popen", "pd.read_pickle", "unsafe_load", "full_load", "jit.load"}
"""Ends of the names of functions that run what they are given."""


def offences(source: str) -> Iterator[str]:
    """What in a source could run code that comes from a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"{node.lineno} imports {name}" for name in names if name.split(".")[0] in RUNNING_WHEN_READ)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            parts = name.split(".")
            is_faulty = (
                bool({parts[-1], ".".join(parts[-2:])} & RUNNING)
                or name in ("yaml.load", "yaml.load_all")
                or (name == "torch.load" and given.get("weights_only") != "True")
                or given.get("allow_pickle", "False") != "False"
                or given.get("shell", "False") != "False"
            )
            if is_faulty:
                yield f"{node.lineno} calls {name}"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("yaml.Loader", "yaml.UnsafeLoader"):
            yield f"{node.lineno} uses {ast.unparse(node)}"


def test_no_file_reads_what_could_run_code() -> None:
    """Neither pickles nor YAML's tags nor text as code nor a shell, the named exception aside."""
    files = sorted(file for package in ("crwn", "orchestrator") for file in (ROOT / package).rglob("*.py"))
    assert len(files) > 50
    found = {file.relative_to(ROOT).as_posix(): list(offences(file.read_text(encoding="utf-8"))) for file in files}
    (allowed,) = found.pop(EXCEPTION)
    assert allowed.endswith("imports pickle")
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import load",
        "from joblib import load as read",
        "eval(text)",
        "exec(text)",
        "import os\nos.system(text)",
        "yaml.load(text, yaml.SafeLoader)",
        "yaml.unsafe_load(text)",
        "class Reader(yaml.UnsafeLoader): ...",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "torch.jit.load(file)",
        "np.load(file, allow_pickle=True)",
        "pd.read_pickle(file)",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=is_text)",
    ],
)
def test_every_way_is_found(source: str) -> None:
    """The reader of the source sees each."""
    assert len(list(offences(source))) == 1


@pytest.mark.parametrize(
    "source",
    ["torch.load(file, weights_only=True)", "np.load(file)", "yaml.safe_load(text)", "re.compile(text)", "run([name])"],
)
def test_what_is_safe_is_let_be(source: str) -> None:
    """The safe forms of the same."""
    assert list(offences(source)) == []
