"""Fingerprints of code: they depend on what a source does, not on its layout or the Python version."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crwn import code
from crwn.code import RESULTS_VERSION, Code, code_of, crwn_code, fingerprint, method_code
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.supsup import SupSupSpec

ROOT = Path(__file__).resolve().parents[2]

SAMPLE = '''"""What it is."""

from __future__ import annotations

import math as m
from typing import Generic, TypeVar

T = TypeVar("T")

LIMIT = 2**10  # a comment
"""What it limits."""


@cached(size=3)
class Walk(Generic[T], metaclass=type):
    """A walk."""

    def __init__(self, step: float = 0.5, *, scale: "int" = -1, **rest: object) -> None:
        """Begins."""
        self.step, self.scale = step, scale

    async def go(self, to, /, *places, by=1j):
        async with self.gate() as gate, other:
            return [place async for place in places if place not in {1, "ä", b"\\x00"}]


def shown(value, width, *others):
    first, *rest = others
    assert value is not ..., "missing"
    try:
        total = sum((a := 1) + a @ b for a, b in zip(rest, first[1:-1:2], strict=True) if a < b <= 3)
    except* (ValueError, OSError) as error:
        raise RuntimeError(f"{error!r}") from error
    match value:
        case {"kind": str(kind), **left} if left:
            return lambda x, y=2: x // y
        case [1, *_] | None:
            pass
        case Point(x=0):
            return f"a{{b}}{value:>{width}.{3}f}" "c" f"{total=} {value:}{value!s:x}" rf"\\n{width}"
    while not total:
        total |= 0xFFFFFFFFFFFFFFFFFFFF
    else:
        del total, value[0], value.name
    global LIMIT
    return {**first, "key": [*rest], **{}}
'''

DIGESTS = {SAMPLE: "494d8ea259988871", "": "f3dc0622d4e97561", "x = 1\n": "532c98145977330c"}
"""Recorded on Python 3.11: they hold whatever runs this test, so that every Python gives the same."""


def test_every_python_gives_the_digests_that_were_recorded() -> None:
    """Otherwise, a trial resumed with another Python would seem to be computed by different code."""
    assert {source: fingerprint(source) for source in DIGESTS} == DIGESTS


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_another_python_on_this_machine_gives_the_same(version: str) -> None:
    """Of the sample and of this package; from the file alone, since other Pythons have no libraries here."""
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    python = str(found[-1]) if found else shutil.which(f"python{version}")
    if python is None:
        pytest.skip(f"no Python {version} on this machine; the recorded digests hold on whatever runs this test")
    script = (
        "import json, runpy, sys; found = runpy.run_path(sys.argv[1]); "
        "print(json.dumps([found['fingerprint'](sys.stdin.read()), found['crwn_code']()]))"
    )
    done = subprocess.run(
        [python, "-I", "-X", "utf8", "-c", script, str(ROOT / "crwn" / "code.py")],
        input=SAMPLE,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert json.loads(done.stdout) == [DIGESTS[SAMPLE], crwn_code()]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""What it is."""\n', ""),
        ('"""A walk."""', '"""Another walk,\n    over lines."""'),
        ('"""What it limits."""\n', ""),
        ("  # a comment", ""),
        ("\nT = ", "\n\n# more\nT   =   "),
        ('"missing"', "'missing'"),
        ('"c"', '"" "c"'),
        ('"c"', 'f"c"'),
        ("2**10", "(\n    2 ** 10\n)"),
        ("0xFFFFFFFFFFFFFFFFFFFF", "1208925819614629174706175"),
        ("{value:}", "{value}"),
        ('"a{{b}}', '"a{{" f"b}}'),
        ("self.step, self.scale = step, scale", "(self.step, self.scale) = (step, scale,)"),
        ('        """Begins."""\n', "        pass\n"),
        ("\n", "\r\n"),
        ("def shown(value, width, *others):\n", "def shown(\n    value,\n    width,\n    *others,\n):\n"),
    ],
)
def test_how_it_is_written_does_not_count(old: str, new: str) -> None:
    """Docstrings, other lone texts, comments, quotes, brackets, empty lines, how an f-string is cut."""
    assert old in SAMPLE
    assert fingerprint(SAMPLE.replace(old, new)) == DIGESTS[SAMPLE]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2**10", "2**11"),
        ("2**10", "2*10"),
        ("= 0.5", "= 0.50000001"),
        ("= -1", "= 1"),
        ("= -1", "= -True"),
        ("= -1", "= -1.0"),
        ("by=1j", "by=1"),
        ("*, scale", "scale"),
        ("/, ", ""),
        ("float", "int"),
        ('"int"', "int"),
        ("step, scale\n", "scale, step\n"),
        ("size=3", "size=4"),
        ("@cached(size=3)\n", ""),
        ("Generic[T], ", ""),
        ("async with", "with"),
        ('"ä"', '"a"'),
        ('"ä"', 'b"a"'),
        ("not in", "in"),
        ("a < b <= 3", "a <= b <= 3"),
        ("a @ b", "b @ a"),
        ("1:-1:2", "1:-1"),
        ("except*", "except"),
        ("!r", ""),
        (".{3}f", ".{4}f"),
        ("{total=}", "{total}"),
        ("{{b}}", "{b}"),
        ('"c"', '"d"'),
        ('rf"', 'f"'),
        ("| None:", "| True:"),
        ("**left}", "**rest}"),
        ("    global LIMIT\n", ""),
        ("import math as m", "import math"),
        ("**{}}", "}"),
        (", value[0]", ""),
        ("T = ", "S = "),
        ("    first, *rest = others\n    assert", "    assert"),
    ],
)
def test_what_it_does_counts(old: str, new: str) -> None:
    """One constant, name, operator, default, decorator, annotation, part of an f-string, or statement."""
    assert old in SAMPLE
    assert fingerprint(SAMPLE.replace(old, new, 1)) != DIGESTS[SAMPLE]


def test_the_order_of_statements_counts() -> None:
    """And what is in which block."""
    sources = ("a = 1\nb = 2", "b = 2\na = 1", "if a:\n  b\nelse:\n  c", "if a:\n  c\nelse:\n  b", "if a:\n  b\nc")
    assert len({fingerprint(source) for source in sources}) == len(sources)


def test_long_sources_nest_as_deep_as_they_like() -> None:
    """A sum of many terms is a deep syntax tree."""
    assert fingerprint("+".join("a" * 700)) != fingerprint("+".join("a" * 701))


def test_a_doubtful_escape_is_no_warning() -> None:
    """The warning appears when the file is imported."""
    assert fingerprint(r"x = '\d'") == fingerprint(r"x = '\\d'")


def test_a_methods_code_is_its_own_file() -> None:
    """The file of its spec's module, as it is on disk."""
    found = code_of(NeuroModNetSpec())
    source = (ROOT / "crwn" / "methods" / "neuromodnet.py").read_text(encoding="utf-8")
    assert found == Code(method=fingerprint(source), crwn=crwn_code(), results_version=RESULTS_VERSION)
    assert method_code(SupSupSpec()) != found.method
    assert found.crwn is not None


def test_code_without_a_source_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a notebook, a built-in module, a removed file, or this package in a zip archive."""
    no_file, removed = type("Spec", (), {"__module__": "of a notebook"}), type("Spec", (), {"__module__": "removed"})
    monkeypatch.setitem(sys.modules, "removed", type(sys)("removed"))
    sys.modules["removed"].__file__ = str(tmp_path / "removed.py")
    assert [method_code(made()) for made in (no_file, removed, object)] == [None, None, None]
    monkeypatch.setattr(code, "__file__", str(tmp_path / "crwn.zip" / "code.py"))
    assert crwn_code.__wrapped__() is None


def test_the_packages_code_is_all_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Their names and what they do, except for the builder of synthetic stores, which computes no trial."""
    monkeypatch.setattr(code, "__file__", str(tmp_path / "code.py"))
    files = {"code.py": "a = 1", "nn/dense.py": "b = 1", "testing.py": "c = 1"}
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)

    def after(name: str, source: str) -> str | None:
        (tmp_path / name).write_text(source)
        return crwn_code.__wrapped__()

    before = crwn_code.__wrapped__()
    assert before is not None
    assert after("nn/dense.py", "b = 1  # a comment") == before
    assert after("testing.py", "c = 2") == before
    assert after("nn/dense.py", "b = 2") != before
    assert after("nn/dense.py", "b = 1") == before
    (tmp_path / "nn" / "dense.py").rename(tmp_path / "nn" / "other.py")
    assert after("code.py", "a = 1") != before
    assert after("nn/broken.py", "a = (") is None


TRACES = {
    "agem": "552c52c8ec7aa74a",
    "batche": "52a2ad3c772b3684",
    "derpp": "02995bd7489e2fa5",
    "er": "4f28181a77bec9fb",
    "ewc": "18add55ae12b9bd4",
    "finetune-class": "8921b3486bd00935",
    "finetune": "496df81d63bc5b38",
    "flynet": "406b8f0270d57120",
    "joint": "9f53db7dc97978e8",
    "lwf": "e6e9917ab5dbbb6d",
    "mtl": "efc0bdff531d7a26",
    "neuromodnet-pretrained": "0d9ae3fab39fd220",
    "neuromodnet": "41c59cfde1152867",
    "psp": "1a79525bd71af20c",
    "si": "2c63fefef8f7f355",
    "stl": "91c84731a93d1073",
    "supsup": "3d441743912f0949",
}
"""Digests of the golden traces of `TRACED_VERSION`. A new method's need not be added before the next version."""

TRACED_VERSION = 1


def test_the_results_version_goes_with_the_golden_traces() -> None:
    """Different results have a different version, which records contain."""
    folder = ROOT / "tests" / "golden"
    found = {name: hashlib.sha256((folder / f"{name}.json").read_bytes()).hexdigest()[:16] for name in TRACES}
    assert (RESULTS_VERSION, found) == (TRACED_VERSION, TRACES), (
        "A golden trace or RESULTS_VERSION changed. If a trial of equal settings gives other numbers, raise "
        "RESULTS_VERSION in crwn/code.py by one, and record it with all digests here."
    )
