"""Changes of a sweep from the command line: what they change, and what their faults say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Sweep

SweepFile = Callable[..., Path]

TEXT = """\
name: changed
seeds: [0, 1]
benchmarks: [r-digits, p-digits]
training: {updates_per_task: 10}
methods:
  supsup: {scales: [FC16]}
  ewc:
    scales: [FC16]
    variants:
      strength 0.7: {settings: {strength: 0.7}}
      strength 0: {settings: {strength: 0.0}}
      a=b.c:
"""


@pytest.fixture
def changed(sweep_file: SweepFile) -> Callable[..., Sweep]:
    """Loads the sweep with changes."""
    return lambda *changes: load_sweep(sweep_file(TEXT), changes=changes)


@pytest.fixture
def faults(sweep_file: SweepFile) -> Callable[..., list[str]]:
    """The faults of the sweep with changes."""

    def read(*changes: str, text: str = TEXT) -> list[str]:
        with pytest.raises(UserError, match=r"sweep\.yaml: \d+ faults?; nothing was started") as error:
            load_sweep(sweep_file(text), changes=changes)
        return [line.strip() for line in str(error.value).splitlines()[1:]]

    return read


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("seeds=[0, 7]", ("seeds: [0, 1]", "seeds: [0, 7]")),
        ("training.updates_per_task=20", ("updates_per_task: 10", "updates_per_task: 20")),
        ("training={epochs_per_task: 2}", ("updates_per_task: 10", "epochs_per_task: 2")),
        (
            "methods.supsup.training.learning_rate=0.001",
            ("supsup: {", "supsup: {training: {learning_rate: 0.001}, "),
        ),
        ("methods.supsup.scales=[FC16, FC32]", ("supsup: {scales: [FC16]", "supsup: {scales: [FC16, FC32]")),
        ("methods.ewc.variants.strength 0.7.settings.strength=7e-1", ("", "")),
        ("methods.ewc.variants.strength 0.7.settings.strength=3", ("strength: 0.7}", "strength: 3.0}")),
        ("methods.ewc.variants.a=b.c.settings.strength=3", ("a=b.c:", "a=b.c: {settings: {strength: 3.0}}")),
        ("benchmarks.p-digits.num_tasks=3", ("[r-digits, p-digits]", "{r-digits: , p-digits: {num_tasks: 3}}")),
        ("store='runs/a=b'", ("name: changed", "name: changed\nstore: runs/a=b")),
    ],
)
def test_a_change_is_as_if_the_file_had_it(
    changed: Callable[..., Sweep], sweep_file: SweepFile, change: str, line: tuple[str, str]
) -> None:
    """The same trials, thus identities, as those of an edited file; keys may be missing there, and names have dots."""
    found = changed(change)
    edited = load_sweep(sweep_file(TEXT.replace(*line)))
    assert found.changes == found.manifest().changes == (change,)
    assert found.cells == edited.cells
    assert found.store == edited.store


def test_without_changes_a_manifest_is_as_before(changed: Callable[..., Sweep]) -> None:
    """Its bytes say nothing of changes."""
    assert "changes" not in changed().manifest().content()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("methods.supsub.scales=[FC8]", "expected one of ewc, supsup; given 'supsub'; did you mean 'supsup'?"),
        (
            "benchmarks.r-digit.num_tasks=2",
            "expected one of p-digits, r-digits; given 'r-digit'; did you mean 'r-digits'?",
        ),
        (
            "methods.ewc.variants.strength 1.settings={}",
            "expected one of a=b.c, strength 0, strength 0.7; given 'strength 1'; did you mean 'strength 0'?",
        ),
        ("methods.supsup.variants.none.settings={}", "expected none here; given 'none'"),
        (
            "methods.supsup.settings.maks=budget",
            "unknown key; expected one of budget, mask; given 'maks'; did you mean 'mask'?",
        ),
        ("training.learning_rate=fast", "expected a valid number; given 'fast'"),
        ("training.batch_size=010", "expected a number that all programs read alike, given 010"),
        ("training.batch_size=[", "expected a value in YAML, but it does not parse: "),
        ("training.batch_size=!!python/name:os.system", "expected plain values, given the YAML tag"),
        ("seeds", "expected a key, = and a value, such as methods.supsup.training.learning_rate=0.001"),
        ("", "expected a key, = and a value, "),
        ("seeds.0=3", "expected keys, given [0, 1]; set it as a whole"),
        ("sed=3", "unknown key; expected one of "),
    ],
)
def test_a_fault_names_the_option_instead_of_a_line(faults: Callable[..., list[str]], change: str, fault: str) -> None:
    """What was typed, what was expected there, and the nearest name."""
    (found,) = faults(change)
    assert found.startswith(f"--set {change}: {fault}")


def test_a_change_that_the_store_could_not_keep_is_refused(faults: Callable[..., list[str]]) -> None:
    """On more than one line, or too long."""
    (found,) = faults("name=a\nb")
    assert found == "--set 'name=a\\nb': expected at most 10,000 printable characters, since the store records it"
    (found,) = faults("name=" + "a" * 20_000)
    assert len(found) < 300


def test_a_fault_inside_of_a_value_has_its_place(faults: Callable[..., list[str]]) -> None:
    """Where a change sets more than one value; and where the file and a change do not fit each other."""
    assert faults("training={updates_per_task: 10, batch_size: 0}", "methods.supsup.group_size=7") == [
        (
            "--set training={updates_per_task: 10, batch_size: 0}, training.batch_size: "
            "expected greater than or equal to 1; given 0"
        )
    ]
    assert faults("methods.ewc.variants.strength 0.settings.strength=0.7") == [
        "line 11, methods.ewc.variants.strength 0 with --set methods.ewc.variants.strength 0.settings.strength=0.7: "
        f"requests the same trials twice: methods.ewc.variants.strength 0 at FC16 on {name} equals "
        f"methods.ewc.variants.strength 0.7 at FC16 on {name}; remove one"
        for name in ("r-digits", "p-digits")
    ]


def test_faults_of_the_file_and_of_changes_are_told_at_once(faults: Callable[..., list[str]]) -> None:
    """Those of the file first, with their lines; a key that is given twice is one."""
    text = TEXT.replace("[FC16]}", "[FC16], group: 3}")
    found = faults("seeds=x", "seeds=[3]", "nme=y", text=text)
    assert [fault.partition(":")[0] for fault in found] == [
        "line 6, methods.supsup.group",
        "--set seeds=x",
        "--set seeds=x",
        "--set nme=y",
    ]
    assert [fault for fault in found if fault.startswith("--set seeds=x: ") and "--set seeds=[3]" in fault]
