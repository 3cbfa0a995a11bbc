"""Plug-in files of sweeps: run only if the command names them too, by any path, and recorded in the manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crwn.methods import METHODS
from crwn.plugins import FilePlugin, provider
from orchestrator.errors import UserError
from orchestrator.store.manifests import Manifest
from orchestrator.sweeps.reading import load_sweep
from tests.plugged import METHOD, SWEEP

pytestmark = pytest.mark.usefixtures("no_plugins")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep with its plug-in."""
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    (tmp_path / "my_method.py").write_text(METHOD)
    return tmp_path


def faults(file: Path, *plugins: Path) -> tuple[str, ...]:
    """The codes of the sweep's faults, each once, and all that is said of them."""
    with pytest.raises(UserError) as error:
        load_sweep(file, plugins=plugins)
    return (*error.value.codes, str(error.value))


def test_a_plug_in_that_is_not_named_is_not_run(folder: Path) -> None:
    """The error has the flag to add, and nothing else: the method would seem unknown."""
    (folder / "my_method.py").write_text("raise RuntimeError")
    code, said = faults(folder / "sweep.yaml")
    assert code == "plugin-not-named"
    (line,) = said.splitlines()[1:]
    assert line.startswith("  line 3, plugins[0]: my_method.py ")
    assert line.endswith(f" --plugin {folder}/my_method.py")


def test_a_plug_in_that_is_named_is_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By any path to it; its method has settings as every other has."""
    monkeypatch.chdir(folder)
    for named in (folder / "my_method.py", Path("my_method.py"), Path("..") / folder.name / "my_method.py"):
        sweep = load_sweep(folder / "sweep.yaml", plugins=[named])
        assert [trial.method.kind for trial in sweep.trials] == ["mine"]
        assert sweep.trials[0].variant == "strength=2.0"
        (plugin,) = sweep.plugins
        assert isinstance(plugin, FilePlugin)
        assert plugin == provider(METHODS, "mine")


def test_the_settings_of_its_method_are_checked(folder: Path) -> None:
    """Unknown keys, wrong values."""
    (folder / "sweep.yaml").write_text(SWEEP.replace("strength: 2.0", "strong: 2.0"))
    code, said = faults(folder / "sweep.yaml", folder / "my_method.py")
    assert code == "unknown-key"
    assert "methods.mine.settings.strong: " in said


def test_a_command_names_only_what_the_sweep_lists(folder: Path) -> None:
    """So that the sweep says what it needs; nothing is run."""
    (folder / "other.py").write_text("raise RuntimeError")
    code, said = faults(folder / "sweep.yaml", folder / "other.py")
    assert code == "plugin-not-listed"
    for fact in (f"--plugin {folder}/other.py: ", f"{folder}/sweep.yaml", "my_method.py", "plugins: [other.py]"):
        assert fact in said
    (folder / "sweep.yaml").write_text(SWEEP.replace("plugins: [my_method.py]\n", ""))
    assert faults(folder / "sweep.yaml", folder / "my_method.py")[0] == "plugin-not-listed"


@pytest.mark.parametrize("name", ["../my_method.py", "sub/my_method.py", "/my_method.py", "my_method", "my-method.py"])
def test_a_plug_in_lies_beside_the_sweep(folder: Path, name: str) -> None:
    """Its name is that of a Python file, without folders, so that both can be sent elsewhere."""
    (folder / "sweep.yaml").write_text(SWEEP.replace("my_method.py", name))
    code, said = faults(folder / "sweep.yaml")
    assert code == "plugin-name-unfit"
    assert "plugins[0]: " in said
    assert repr(name) in said


@pytest.mark.parametrize("given", ["3", "[3]", "{a: b}"])
def test_plug_ins_are_a_list_of_names(folder: Path, given: str) -> None:
    """Anything else is a fault at its place."""
    (folder / "sweep.yaml").write_text(SWEEP.replace("[my_method.py]", given))
    code, said = faults(folder / "sweep.yaml")
    assert code == "wrong-type"
    assert "line 3, plugins" in said


def test_a_faulty_plug_in_is_a_fault_of_the_sweep(folder: Path) -> None:
    """In one line, with its place in both files."""
    (folder / "my_method.py").write_text(METHOD + "\n1 / 0\n")
    code, said = faults(folder / "sweep.yaml", folder / "my_method.py")
    assert code == "plugin-not-importable"
    (line,) = said.splitlines()[1:]
    assert line.startswith(f"  line 3, plugins[0]: {folder}/my_method.py: ")
    assert line.endswith("ZeroDivisionError: division by zero, line 45")


def test_the_manifest_says_which_code(folder: Path) -> None:
    """The file's name, the checksum of its bytes and the fingerprint of what it does; else it is as it was."""
    sweep = load_sweep(folder / "sweep.yaml", plugins=[folder / "my_method.py"])
    content = sweep.manifest().to_json_bytes()
    (plugin,) = sweep.plugins
    assert json.loads(content)["plugins"] == [{"name": "my_method.py", "version": plugin.version, "code": plugin.code}]
    assert Manifest.from_json(content, name="mine", place="") == sweep.manifest()
    (folder / "sweep.yaml").write_text(SWEEP.replace("plugins: [my_method.py]\n", "").replace("mine:", "er:").replace(
        ", settings: {strength: 2.0}", ""))  # fmt: skip
    assert "plugins" not in json.loads(load_sweep(folder / "sweep.yaml").manifest().to_json_bytes())
