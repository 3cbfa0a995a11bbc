"""Plug-ins: files and entry points, what is refused, and loading them in another process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from crwn import backbone
from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.sequential import SequentialSpec
from crwn.code import fingerprint, method_code, module_code
from crwn.data import Datasets
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.methods.protocol import NETWORKS
from crwn.plugins import InstalledPlugin, PluginError, find, installed_names, load_file, provider, read_file
from crwn.testing import tiny_trial
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec, code_of_trial, used_by
from tests.plugged import METHOD, NETWORK
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("no_plugins")

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a plug-in file with a part of it replaced."""

    def written(old: str = "", new: str = "", name: str = "my_method.py") -> Path:
        assert old in METHOD
        path = tmp_path / name
        path.write_text(METHOD.replace(old, new) if old else METHOD, encoding="utf-8")
        return path

    return written


def test_a_file_adds_what_it_declares(write: Write) -> None:
    """A method like the others, whose code is that of the file as it was read; loading it again changes nothing."""
    plugin = load_file(write())
    spec = METHODS["mine"].spec()
    assert provider(METHODS, "mine") == plugin
    assert plugin.code == fingerprint(METHOD) == method_code(spec)
    write("0.5", "0.25")
    module_code.cache_clear()
    assert method_code(spec) == plugin.code
    plugin.load()
    assert used_by(tiny_trial("mine", benchmark="seq-digits", num_tasks=5)) == (plugin,)
    assert used_by(tiny_trial("er", benchmark="seq-digits", num_tasks=5)) == ()


def test_a_file_is_not_run_by_reading_it(write: Write) -> None:
    """Its bytes and checksum are read without running it."""
    plugin = read_file(write("METHODS = {", "raise RuntimeError\nMETHODS = {"))
    assert len(plugin.version) == 64
    assert "mine" not in METHODS


IMPORT, ENTRY = "plugin-not-importable", "plugin-entry-unfit"


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ("METHODS = {", "import absent_module\nMETHODS = {", IMPORT, "ModuleNotFoundError"),
        ("METHODS = {", "METHODS = {{", IMPORT, "SyntaxError"),
        ("METHODS = {", "1 / 0\nMETHODS = {", IMPORT, "ZeroDivisionError: division by zero, line 43"),
        ("METHODS = {", "raise SystemExit(3)\nMETHODS = {", IMPORT, "SystemExit: 3, line 43"),
        ("METHODS = {", "KINDS = {", "plugin-declares-nothing", "BASE_SETS, BENCHMARKS, NETWORKS, METHODS"),
        ("METHODS = {", "METHODS = 7\n{", ENTRY, "7"),
        ("METHODS = {", "METHODS = {1: 2}\n{", ENTRY, "{1: 2}"),
        ('{"mine": ', '{"er": ', "name-taken", "'er'"),
        ('{"mine": ', '{"other": ', "spec-of-other-kind", "'mine'"),
        ("frozen=True, ", "", "spec-not-frozen", "frozen=True"),
        ("READ_STRICTLY\n\n", "{}\n\n", "spec-not-strict", "READ_STRICTLY"),
        ("PositiveFloat = 0.5", "PositiveFloat = -1.0", "spec-refused", "strength"),
        ("PositiveFloat = 0.5", "PositiveFloat", "spec-refused", "strength"),
        ("    def training(", "    def trains(", "spec-incomplete", "MineSpec"),
        ("spec=MineSpec", "spec=int", "plugin-spec-elsewhere", "int"),
        ("spec=MineSpec", "spec=3", "spec-not-frozen", "3"),
        ("build=Mine", "build=3", ENTRY, "3"),
        ("MethodEntry(spec=MineSpec, build=Mine)", "Mine", ENTRY, "Mine"),
    ],
)
def test_a_faulty_file_is_refused(write: Write, old: str, new: str, code: str, says: str) -> None:
    """The error has the file, the fault and its place; nothing of it remains, so a corrected file can be loaded."""
    with refused(PluginError, code, says=["my_method.py: ", says]):
        load_file(write(old, new))
    assert "mine" not in METHODS
    load_file(write())


def test_all_faults_are_named_at_once(write: Write) -> None:
    """And nothing of a file is added if a part of it is wrong."""
    text = METHOD.replace("frozen=True, ", "").replace("READ_STRICTLY\n\n", "{}\n\n").replace("build=Mine", "build=3")
    path = write()
    path.write_text(text.replace('{"mine"', '{"a/b"'), encoding="utf-8")
    codes = ("name-unfit", "spec-not-frozen", "spec-not-strict", "spec-of-other-kind")
    with refused(PluginError, *codes, ENTRY, says="'a/b'"):
        load_file(path)
    assert "mine" not in METHODS


@pytest.mark.parametrize("name", ["my-method.py", "method.txt", "1.py", ".py"])
def test_a_file_needs_a_name_that_a_module_can_have(tmp_path: Path, name: str) -> None:
    """Otherwise, it is not read."""
    with refused(PluginError, "plugin-name-unfit", says=name):
        read_file(tmp_path / name)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """With what the system says; so is one that is too large for a source."""
    with refused(PluginError, "file-unreadable", says="absent.py"):
        read_file(tmp_path / "absent.py")
    (tmp_path / "large.py").write_bytes(b"#" * (2**20 + 1))
    with refused(PluginError, "file-too-large", says=["large.py", "1,048,576"]):
        read_file(tmp_path / "large.py")


def test_a_process_has_one_file_of_a_name(write: Write) -> None:
    """Another under the same name is refused with both checksums."""
    first = load_file(write())
    second = read_file(write("0.5", "0.25"))
    with refused(PluginError, "plugin-differs", says=[first.version, second.version]):
        second.load()


RECEIVE = """
import pickle, sys
value = pickle.load(open(sys.argv[1], "rb"))
from crwn.code import method_code
from crwn.methods import METHODS
print(*METHODS.keys() & {"mine"}, method_code(METHODS["mine"].spec()), value[1].method.kind, "torch" in sys.modules)
"""


def receive(file: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """Unpickle a plug-in and a trial in another process."""
    command = [sys.executable, "-c", before + RECEIVE, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_another_process_has_it_before_the_trials_that_need_it(write: Write, tmp_path: Path) -> None:
    """From its bytes: the file may be another by then, or lie on another machine; torch is not needed for it."""
    plugin = load_file(write())
    sent = tmp_path / "sent"
    sent.write_bytes(pickle.dumps((plugin, tiny_trial("mine", benchmark="seq-digits", num_tasks=5))))
    write("0.5", "0.25").unlink()
    found = receive(sent)
    assert found.stdout.split() == ["mine", plugin.code, "mine", "False"], found.stderr

    other = write("0.5", "0.25")
    refused = receive(sent, f"from pathlib import Path\nfrom crwn.plugins import *\nload_file(Path({str(other)!r}))\n")
    assert refused.returncode == 1
    assert "crwn.plugins.PluginError" in refused.stderr
    assert f"expected {plugin.version}" in refused.stderr


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a distribution with one package and entry points."""

    def installed(name: str, points: str, version: str = "1.2", source: str = METHOD) -> None:
        root = tmp_path / f"site-{name}"
        package, information = root / name, root / f"{name}-{version}.dist-info"
        package.mkdir(parents=True)
        information.mkdir()
        (package / "__init__.py").write_text("")
        (package / "mine.py").write_text(source)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (information / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(root)

    yield installed
    for name in [name for name in sys.modules if name.partition(".")[0] in ("thesis", "other")]:
        del sys.modules[name]


POINT = "[crwn.methods]\nmine = thesis.mine:METHODS_MINE\n"
OF_PACKAGE = METHOD + 'METHODS_MINE = METHODS["mine"]\n'


def test_an_entry_point_is_imported_when_its_name_is_asked_for(install: Callable[..., None]) -> None:
    """Not before; then with its distribution's name and version, and the code of all of its package."""
    install("thesis", POINT, source=OF_PACKAGE)
    assert "mine" in installed_names(METHODS)
    assert "thesis" not in sys.modules
    assert find(METHODS, "er")
    assert not find(METHODS, "another")
    assert "thesis" not in sys.modules
    assert find(METHODS, "mine")
    plugin = provider(METHODS, "mine")
    assert isinstance(plugin, InstalledPlugin)
    assert (plugin.name, plugin.version, plugin.group, plugin.entry) == ("thesis", "1.2", "crwn.methods", "mine")
    assert plugin.code == method_code(METHODS["mine"].spec())
    assert plugin.code not in (None, fingerprint(OF_PACKAGE))
    plugin.load()


@pytest.mark.parametrize(
    ("points", "source", "codes"),
    [
        (POINT.replace("METHODS_MINE", "ABSENT"), OF_PACKAGE, [IMPORT]),
        (POINT, "import absent_module", [IMPORT]),
        (POINT, OF_PACKAGE.replace("frozen=True, ", ""), ["spec-not-frozen"]),
        (POINT.replace("METHODS_MINE", "MineSpec"), OF_PACKAGE, [ENTRY]),
    ],
)
def test_a_faulty_entry_point_is_refused(
    install: Callable[..., None], points: str, source: str, codes: list[str]
) -> None:
    """With the name, where it leads, and the fault."""
    install("thesis", points, source=source)
    with refused(PluginError, *codes, says="thesis.mine:"):
        find(METHODS, "mine")
    assert "mine" not in METHODS


def test_two_distributions_with_one_name_are_refused(install: Callable[..., None]) -> None:
    """It would be ambiguous which one a sweep means; neither is imported."""
    install("thesis", POINT, source=OF_PACKAGE)
    install("other", POINT.replace("thesis", "other"), source=OF_PACKAGE)
    with refused(PluginError, "plugin-ambiguous", says=["mine", "thesis", "other"]):
        find(METHODS, "mine")
    assert not {"thesis", "other"} & sys.modules.keys()


def test_another_version_on_another_machine_is_refused(install: Callable[..., None]) -> None:
    """By the version, or by the code if the version is the same; a missing one is refused too."""
    install("thesis", POINT, source=OF_PACKAGE)
    find(METHODS, "mine")
    plugin = provider(METHODS, "mine")
    other = InstalledPlugin(name="thesis", version="1.2", code="0" * 16, group="crwn.methods", entry="mine")
    with refused(PluginError, "plugin-differs", says=["mine", "thesis 1.2", "0" * 16, str(plugin.code)]):
        pickle.loads(pickle.dumps(other))  # noqa: S301 (our own)
    absent = InstalledPlugin(name="absent", version="1", code=None, group="crwn.methods", entry="absent")
    with refused(PluginError, "plugin-differs", says="absent"):
        absent.load()


def test_crwn_itself_declares_no_entry_points() -> None:
    """Built-in names are in the registries."""
    assert not [point for point in metadata.distribution("crwn").entry_points if point.group.startswith("crwn.")]
    assert installed_names(BENCHMARKS) == set()


def test_an_entry_point_is_a_network(install: Callable[..., None]) -> None:
    """Imported where a trial's scale is its name, from JSON too, which built-in scales do not ask for."""
    install("thesis", "[crwn.networks]\nsmall = thesis.mine:small\nnf10 = thesis.mine:small\n", source=NETWORK)
    spec = tiny_trial("finetune", benchmark="seq-digits", num_tasks=5, scale="nf10")
    assert "thesis" not in sys.modules
    own = TrialSpec.from_json(spec.canonical_json().replace('"nf10"', '"small"'))
    plugin = provider(NETWORKS, "small")
    assert isinstance(plugin, InstalledPlugin)
    assert (plugin.name, plugin.group, plugin.entry) == ("thesis", "crwn.networks", "small")
    assert used_by(own) == (plugin,)
    assert (used_by(spec), code_of_trial(spec).added) == ((), None)
    assert code_of_trial(own).added is not None
    plugin.load()


OTHERS = """\
import dataclasses
from dataclasses import dataclass

import crwn.benchmarks.sequential as sequential
from crwn.benchmarks import BenchmarkEntry
from crwn.data.base import BaseSet, Embedded
from crwn.data.digits import DIGITS, read
from crwn.spec import check_fields, kind_field


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsSpec(sequential.SequentialSpec):
    kind: str = kind_field("pairs")
    base: str = "ten"


TEN = dataclasses.replace(DIGITS, name="ten", source=Embedded(read=read))
BASE_SETS = {"ten": TEN}
BENCHMARKS = {"pairs": BenchmarkEntry(spec=PairsSpec, build=sequential.build)}
"""


def test_a_file_adds_benchmarks_and_base_sets(tmp_path: Path, digits: Datasets) -> None:
    """A benchmark, and a base set that every benchmark can use; their code is part of a trial's."""
    file = tmp_path / "mine.py"
    file.write_text(OTHERS)
    plugin = load_file(file)
    own = tiny_trial("er", benchmark=BENCHMARKS["pairs"].spec(), scale="FC8", buffer=20)
    assert {row.task for row in run_trial(own, data=digits, backbones=backbone.draw).rows} == set(range(5))
    built_in = tiny_trial("er", benchmark=SequentialSpec(base="ten"), scale="FC8", buffer=20)
    on_digits = tiny_trial("er", benchmark=SequentialSpec(base="digits"), scale="FC8", buffer=20)
    rows = [run_trial(spec, data=digits, backbones=backbone.draw).rows for spec in (built_in, on_digits)]
    assert [row.loss for row in rows[0]] == [row.loss for row in rows[1]]
    assert used_by(own) == used_by(built_in) == (plugin,)
    code = code_of_trial(built_in)
    assert code.added not in (None, code_of_trial(own).added)
    assert code_of_trial(on_digits).added is None
    assert replace(code, added=None) == code_of_trial(on_digits)
    with refused(InvalidError, "unknown-name", says=["'eleven'", "'ten'"]):
        SequentialSpec(base="eleven")
