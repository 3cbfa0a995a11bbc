"""YAML read strictly: plain values with their lines, everything else a fault."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.sweeps import yaml_source
from orchestrator.sweeps.places import FileFaultsError, show_path
from tests.orchestrator.sweeps.texts import Found, found_in
from tests.refusals import refused

SweepFile = Callable[..., Path]
Faults = Callable[[str], list[Found]]


@pytest.fixture
def value_of(sweep_file: SweepFile) -> Callable[[str], Any]:
    """Reads a text that has no faults."""

    def read(text: str) -> Any:
        source = yaml_source.read(sweep_file(text))
        source.raise_faults()
        return source.value

    return read


@pytest.fixture
def faults_of(sweep_file: SweepFile) -> Faults:
    """Reads a text that has faults."""

    def read(text: str) -> list[Found]:
        source = yaml_source.read(sweep_file(text))
        with pytest.raises(FileFaultsError) as error:
            source.raise_faults()
        assert str(error.value).startswith(f"{source.file}: {len(error.value.faults)} ")
        return found_in(error.value)

    return read


def test_plain_values_come_out(value_of: Callable[[str], Any]) -> None:
    """Objects, lists, text, numbers, truth values and null are what a sweep is made of."""
    text = "a: {b: [1, two, 3.5, true, null], c: ''}\nd: >\n  folded\n  text\n"
    assert value_of(text) == {"a": {"b": [1, "two", 3.5, True, None], "c": ""}, "d": "folded text\n"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("1.5e3", 1.5e3),
        ("1.5E+3", 1.5e3),
        ("-2e3", -2e3),
        ("+1e1", 10.0),
        ("1.e2", 100.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("+.5", 0.5),
        (".5e-3", 5e-4),
        ("1e-04", 1e-4),
        ("0e3", 0.0),
    ],
)
def test_numbers_are_numbers(value_of: Callable[[str], Any], text: str, value: float) -> None:
    """What looks like a float is one; PyYAML alone reads 1e-4 as text and would run with it as a name."""
    found = value_of(f"a: {text}")["a"]
    assert isinstance(found, float)
    assert found == value


@pytest.mark.parametrize(
    "text",
    ["e5", "1e", "1e5x", "3e2-run", "1e-4 and more", "FC256", "10d", "1.2.3", "0b", "0o8", "_1", "1:99", "-.nan"],
)
def test_text_that_begins_like_a_number_stays_text(value_of: Callable[[str], Any], text: str) -> None:
    """Only a whole number is one: a name such as 1e5x is a name."""
    assert value_of(f"a: {text}") == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("+1", 1), ("-0", 0), ("0", 0), ("0x1F", 31), ("0o10", 8), ("!!int 10", 10)]
)
def test_integers_are_those_of_yaml_1_2(value_of: Callable[[str], Any], text: str, value: int) -> None:
    """In base ten, or with a prefix that says so in base sixteen or eight."""
    found = value_of(f"a: {text}")["a"]
    assert type(found) is int
    assert found == value


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("010", ("10 ", "0o10", "'010'")),
        ("016", ("16 ", "0o16", "'016'")),
        ("02", ("2,", "'02'")),
        ("008", ("8,",)),
        ("-007", ("-7,",)),
        ("00", ("0,",)),
        ("010.5", ("10.5,",)),
        ("00.5", ("0.5,",)),
        ("01e-3", ("1e-3,",)),
        ("1:40", ("100,", "'1:40'")),
        ("-1:00:30.5", ("-3630.5,",)),
        ("1_000", ("1000,", "'1_000'")),
        ("1_0.2_5", ("10.25,",)),
        ("0b1010", ("10,", "'0b1010'")),
        ("-0x1F", ("-31,",)),
        ("0x1_F", ("31,",)),
    ],
)
def test_a_number_that_programs_read_differently_is_refused(
    faults_of: Faults, text: str, advice: tuple[str, ...]
) -> None:
    """YAML 1.1 takes 010 for eight and 1:40 for a hundred, other versions for something else: nothing is guessed."""
    (fault,) = faults_of(f"a: [1, {text}]")
    assert (fault.where, fault.codes) == ("line 1, a[1]", ("ambiguous-number",))
    said = fault.message.partition(f"given {text}; ")[2]
    for fact in advice:
        assert f" {fact}" in said


def test_an_ambiguous_number_without_end_gets_no_advice(faults_of: Faults) -> None:
    """Working out what thousands of digits in base sixty stand for would take longer than the advice is worth."""
    (fault,) = faults_of("a: 1" + 10_000 * ":59")
    assert (fault.where, fault.codes) == ("line 1, a", ("ambiguous-number",))
    assert f"'{('1' + 10_000 * ':59')[:100]}...'" in fault.message


def test_infinities_are_read_for_the_specs_to_refuse(value_of: Callable[[str], Any]) -> None:
    """`.inf` and `.nan` are YAML's numbers; whether one may be infinite is not for the parser to say."""
    high, low, none = value_of("[.inf, -.inf, .nan]")
    assert (high, low) == (math.inf, -math.inf)
    assert math.isnan(none)


@pytest.mark.parametrize(
    ("text", "value"),
    [("yes", True), ("on", True), ("True", True), ("no", False), ("off", False), ("y", "y"), ("n", "n"), ("~", None)],
)
def test_truth_values_are_those_of_yaml_1_1(value_of: Callable[[str], Any], text: str, value: object) -> None:
    """`yes`, `no`, `on` and `off` are truth values, as in PyYAML; single letters are text."""
    found = value_of(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["yes", "1e-4", "1", "null", "2024-01-01"])
def test_quotes_make_text(value_of: Callable[[str], Any], text: str) -> None:
    """Whatever stands in quotes is text."""
    assert value_of(f"a: '{text}'") == {"a": text}


@pytest.mark.parametrize("text", ["<<", "="])
def test_a_sign_with_a_tag_of_its_own_is_to_be_quoted(faults_of: Faults, text: str) -> None:
    """YAML 1.1 gives these two a tag that nobody has written, so the advice is not to remove it."""
    (fault,) = faults_of(f"a: {text}")
    assert (fault.where, fault.codes) == ("line 1, a", ("yaml-tag",))
    assert f"'{text}'" in fault.message


def test_a_date_is_text(value_of: Callable[[str], Any]) -> None:
    """A sweep has no dates; a name that looks like one stays as it was written, also where it is no real date."""
    assert value_of("[2024-01-01, 2024-13-45]") == ["2024-01-01", "2024-13-45"]


def test_keys_are_text_as_written(value_of: Callable[[str], Any]) -> None:
    """A label may look like a number or a truth value; it is the text that was written."""
    text = "1: a\n1e-3: b\nyes: c\nnull: d\n010: e\n1:40: f\n"
    assert value_of(text) == {"1": "a", "1e-3": "b", "yes": "c", "null": "d", "010": "e", "1:40": "f"}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "~\n", "---\n"])
def test_an_empty_file_has_no_value(value_of: Callable[[str], Any], text: str) -> None:
    """Nothing in a file is null, which the sweep then refuses with its own words."""
    assert value_of(text) is None


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(sweep_file: SweepFile) -> None:
    """Editors on other systems write them, and lines count on."""
    source = yaml_source.read(sweep_file("\ufeffa: 1\r\nb:\r\n  c: 2\r\n"))
    assert source.value == {"a": 1, "b": {"c": 2}}
    assert source.lines["b", "c"] == 3


def test_every_value_has_its_line(sweep_file: SweepFile) -> None:
    """Lines count from 1; a key's line is where its name stands, an element's where it begins."""
    source = yaml_source.read(sweep_file("# a comment\na: 1\nb:\n  - x\n  - c:\n      d\n"))
    assert source.lines[("a",)] == 2
    assert source.lines[("b",)] == 3
    assert source.lines["b", 0] == 4
    assert source.lines["b", 1, "c"] == 5


def test_repeated_keys_are_all_reported(faults_of: Faults) -> None:
    """PyYAML keeps the last of two equal keys in silence; here each repetition is a fault, at every depth."""
    text = "a: 1\nb:\n  x: 1\n  y: 2\n  x: 3\na: 2\nc:\n  - k: 1\n    k: 2\na: 3\n"
    expected = [("line 1, a", 6), ("line 1, a", 10), ("line 3, b.x", 5), ("line 8, c[0].k", 9)]
    for fault, (where, again) in zip(faults_of(text), expected, strict=True):
        assert (fault.where, fault.codes) == (where, ("repeated-key",))
        assert f"line {again};" in fault.message


def test_keys_that_are_equal_as_text_are_repeated(faults_of: Faults) -> None:
    """Quotes make no other label."""
    (fault,) = faults_of("1: a\n'1': b\n")
    assert (fault.where, fault.codes) == ("line 1, 1", ("repeated-key",))


def test_a_tag_that_would_run_code_runs_nothing(faults_of: Faults, tmp_path: Path, sweep_file: SweepFile) -> None:
    """A Python tag is a fault with its line; the command in it is never run."""
    touched = tmp_path / "touched"
    text = f"a: 1\nb: !!python/object/apply:os.system ['touch {touched}']\n"
    (fault,) = faults_of(text)
    assert (fault.where, fault.codes) == ("line 2, b", ("yaml-tag",))
    assert "'tag:yaml.org,2002:python/object/apply:os.system'" in fault.message
    assert yaml_source.read(sweep_file(text)).value == {"a": 1, "b": None}
    assert not touched.exists()


@pytest.mark.parametrize("value", ["!own 3", "!!binary aGk=", "!!set {x}", "!!omap [a: 1]", "!<tag:else> [1]"])
def test_other_tags_are_faults(faults_of: Faults, value: str) -> None:
    """Only plain values have a meaning here, so a tag is refused rather than ignored."""
    (fault,) = faults_of(f"a:\n  - {value}\n")
    assert (fault.where, fault.codes) == ("line 2, a[0]", ("yaml-tag",))


@pytest.mark.parametrize("value", ["!!int word", "!!float word", "!!bool maybe", "!!int 1.5", "!!int 010"])
def test_a_value_that_is_not_what_its_tag_says_is_a_fault(faults_of: Faults, value: str) -> None:
    """A plain type's tag must fit its value."""
    (fault,) = faults_of(f"a: {value}\n")
    kind, text = value.removeprefix("!!").split()
    assert (fault.where, fault.codes) == ("line 1, a", ("wrong-type",))
    assert f"{kind}, given {text!r}" in fault.message


def test_a_merge_key_is_a_fault(faults_of: Faults) -> None:
    """`<<` would copy settings from afar; it is refused with its line."""
    (fault,) = faults_of("a: &x {k: 1}\nb:\n  <<: *x\n  j: 2\n")
    assert (fault.where, fault.codes) == ("line 2, b", ("merge-key",))
    assert "line 3" in fault.message


@pytest.mark.parametrize("key", ["[1, 2]", "{a: b}", "!own k", "!!python/name:os.system k"])
def test_a_key_that_is_no_text_is_a_fault(faults_of: Faults, key: str) -> None:
    """Lists, objects and tagged things are no names."""
    (fault,) = faults_of(f"a:\n  {key}: 1\n")
    assert fault.codes == ("key-not-text",)
    assert "line 2" in fault.message


def test_aliases_are_allowed(sweep_file: SweepFile) -> None:
    """An anchor's value may be used again; its lines stay those where it was written."""
    source = yaml_source.read(sweep_file("a: &same\n  - 1\n  - 2\nb: *same\n"))
    source.raise_faults()
    assert source.value == {"a": [1, 2], "b": [1, 2]}
    assert source.lines["b", 1] == 3


@pytest.mark.parametrize("text", ["a: &x [1, *x]\n", "&m\na: *m\n", "a: &x {b: {c: *x}}\n"])
def test_an_alias_of_what_it_stands_in_is_refused(sweep_file: SweepFile, text: str) -> None:
    """A value that contains itself has no end."""
    with refused(UserError, "nested-too-deep", says="sweep.yaml: "):
        yaml_source.read(sweep_file(text))


def test_an_alias_bomb_is_refused(sweep_file: SweepFile) -> None:
    """Eight lines that stand for hundreds of millions of values do not fill the memory."""
    names = "abcdefgh"
    lines = ["a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]" for p, n in itertools.pairwise(names)]
    with refused(UserError, "too-many-values", says="100000"):
        yaml_source.read(sweep_file("\n".join(lines)))


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("a: 1\n---\nb: 2\n", "single document"),
        ("a: [1, 2\nb: }\n", "flow sequence"),
        ("a:\n\tb: 1\n", "'\\t'"),
        ("a: *nowhere\n", "'nowhere'"),
        ("a: \x01\n", "unacceptable character"),
        ("a: 'no end\n", "quoted scalar"),
        ("[" * 3000 + "]" * 3000, "50 levels"),
        ("a: {" * 3000, "50 levels"),
        ("? " * 3000, "50 levels"),
    ],
)
def test_what_is_no_yaml_is_refused(sweep_file: SweepFile, text: str, fact: str) -> None:
    """The parser's own words say where it stopped, behind the file's name."""
    with refused(UserError, "file-not-yaml", says=["sweep.yaml: ", fact]):
        yaml_source.read(sweep_file(text))


def test_a_syntax_error_names_its_line(sweep_file: SweepFile) -> None:
    """Without the line a long file would have to be searched."""
    with refused(UserError, "file-not-yaml", says="line 3, column 4"):
        yaml_source.read(sweep_file("a: 1\nb: [1,\nc: }\n"))


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    """A file that is no text is named, with the reason."""
    file = tmp_path / "image.yaml"
    file.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    with refused(UserError, "file-not-utf-8", says="image.yaml: "):
        yaml_source.read(file)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    """What some editors save is no UTF-8; the message says what to save it as."""
    file = tmp_path / "sweep.yaml"
    file.write_bytes("name: été\n".encode(encoding))
    with refused(UserError, "file-not-utf-8", says=["sweep.yaml: ", "UTF-8"]):
        yaml_source.read(file)


def test_a_file_larger_than_a_sweep_is_refused_unread(tmp_path: Path) -> None:
    """A checkpoint or a log given by mistake is not read into memory, nor is a device without end."""
    file = tmp_path / "log.yaml"
    with file.open("wb") as opened:
        opened.truncate(2**40)  # more than any machine's memory; takes no space
    for given in (file, Path("/dev/zero")):
        with refused(UserError, "file-too-large", says=[f"{given}: ", "1,000,000"]):
            yaml_source.read(given)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """As a shell's `<(...)` gives one: in several parts, some of which come late."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    script = "import sys, time; f = open(sys.argv[1], 'w'); f.write('a: '); f.flush(); time.sleep(0.2); f.write('1')"
    with subprocess.Popen([sys.executable, "-c", script, pipe]):
        assert yaml_source.read(pipe).value == {"a": 1}


def test_a_pipe_that_nobody_writes_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for without end."""
    monkeypatch.setattr(yaml_source, "PIPE_SECONDS", 0.01)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with refused(UserError, "pipe-silent", says=["pipe: ", "0.01 s"]):
        yaml_source.read(pipe)


def test_many_values_are_refused_while_they_are_read(sweep_file: SweepFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file within the limit of bytes may hold more values than any sweep; the parser stops at the first too many."""
    monkeypatch.setattr(yaml_source, "MAX_NODES", 100)
    with refused(UserError, "too-many-values"):
        yaml_source.read(sweep_file("[" + "1," * 200 + "}"))  # the end, which is none, is not reached


def test_aliases_of_a_long_text_are_refused(sweep_file: SweepFile) -> None:
    """Few values, but as text they would take gigabytes."""
    text = f"a: &a {'x' * 10_000}\nb: [{', '.join(['*a'] * 10_000)}]\n"
    with refused(UserError, "text-too-long", says="1,000,000"):
        yaml_source.read(sweep_file(text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A mistyped path is named."""
    with refused(UserError, "file-unreadable", says=["none.yaml: ", "No such file"]):
        yaml_source.read(tmp_path / "none.yaml")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder given for a file is named."""
    with refused(UserError, "file-unreadable", says=["Is a directory"]):
        yaml_source.read(tmp_path)


def test_faults_are_sorted_by_line_and_told_once(sweep_file: SweepFile) -> None:
    """They are noted in any order and read from the top; one that is noted twice is told once."""
    source = yaml_source.read(sweep_file("a: 1\nb:\n  c: 2\n"))
    source.fault(("b", "c"), "late", "second")
    source.fault(("a",), "early", "first")
    source.fault(("b", "c"), "late", "second")
    with refused(FileFaultsError, "early", "late", says=["2 faults", "\n  line 1, a: first\n  line 3, b.c: second"]):
        source.raise_faults()


def test_of_many_faults_the_first_are_shown(sweep_file: SweepFile) -> None:
    """Thousands of lines help nobody; the rest is counted, and not compared with the names that are known."""
    source = yaml_source.read(sweep_file("a:\n" + "  - x\n" * 60))
    for index in range(60):
        source.unknown(("a", index), f"flynett{index}", ["flynet"])
    with pytest.raises(UserError) as error:
        source.raise_faults()
    first, *lines, last = str(error.value).splitlines()
    assert "60 faults" in first
    assert len(lines) == 50
    assert lines[-1].endswith("given 'flynett49'; did you mean 'flynet'?")
    assert last == "  and 10 more"


def test_of_a_place_that_could_not_be_read_nothing_else_is_said(sweep_file: SweepFile) -> None:
    """That its value is missing follows from the first fault."""
    source = yaml_source.read(sweep_file("a: 010\n"))
    source.fault(("a",), "wrong-type", "expected a valid integer; given nothing")
    with refused(FileFaultsError, "ambiguous-number", says="line 1, a: "):
        source.raise_faults()


def test_long_keys_and_values_are_shortened(faults_of: Faults) -> None:
    """A fault fits on a screen whatever it quotes."""
    (fault,) = faults_of(f"{'k' * 1000}: !!int {'v' * 5000}")
    assert (fault.where, fault.codes) == (f"line 1, {'k' * 100}...", ("wrong-type",))
    assert f"'{'v' * 100}...'" in fault.message


def test_a_fault_of_something_absent_has_the_line_of_what_should_hold_it(sweep_file: SweepFile) -> None:
    """A missing key is missed where it should stand."""
    source = yaml_source.read(sweep_file("a: 1\nb:\n  c: 2\n"))
    source.fault(("b", "absent", 3), "missing-key", "missing")
    with refused(FileFaultsError, "missing-key", says="line 2, b.absent[3]: missing"):
        source.raise_faults()


def test_without_faults_nothing_is_raised(sweep_file: SweepFile) -> None:
    """A good file passes."""
    yaml_source.read(sweep_file("a: 1\n")).raise_faults()


@pytest.mark.parametrize(
    ("path", "text"),
    [((), "the file"), (("a",), "a"), (("methods", "flynet", "scales", 1), "methods.flynet.scales[1]"), ((0,), "[0]")],
)
def test_a_path_reads_like_code(path: tuple[str | int, ...], text: str) -> None:
    """Keys are joined by dots, positions stand in brackets."""
    assert show_path(path) == text
