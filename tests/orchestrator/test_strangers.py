"""Untrusted sweeps and stores: they run no code, write nothing elsewhere, and cannot control the terminal."""

from __future__ import annotations

import html.parser
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from crwn.testing import write_finished
from orchestrator.errors import UserError
from orchestrator.report.figures import draw_accuracy_matrix
from orchestrator.store import parquet_files
from orchestrator.store.attempts import Attempt, AttemptError
from orchestrator.store.json_fields import sealed
from orchestrator.store.schemas import ATTEMPTS_FILE, CONTEXTS_FILE, RESUME_FILE, TRIAL_FILE, TRIALS_SCHEMA
from orchestrator.store.store import Store
from orchestrator.sweeps.reading import load_sweep
from orchestrator.tracking import projection
from tests.older_records import make_older
from tests.orchestrator.conftest import TINY
from tests.refusals import refused

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err
Listing = Callable[[Path], dict[str, bytes]]
SweepFile = Callable[..., Path]

CANARY = "touch canary"
APPLY = f"!!python/object/apply:os.system ['{CANARY}']"
ESCAPE = "\x1b]0;owned\x07\x1b[31m"
NESTED = "[" * 100_000
DIGITS = "1" + "0" * 400

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


class Hostile:
    """Leaves a canary when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (CANARY,)


def with_label(label: str) -> str:
    """The tiny sweep with an untrusted label, as YAML writes it."""
    return TINY.replace("neuromodnet: {", f"{json.dumps(label)}: {{method: neuromodnet, ")


# Sweeps


def test_the_hostile_files_are_hostile(workplace: Path) -> None:
    """Read by the unsafe loaders, the same texts and bytes do run."""
    for hostile in (lambda: yaml.unsafe_load(APPLY), lambda: pickle.loads(pickle.dumps(Hostile()))):  # noqa: S301 (that is the point)
        hostile()
        assert Path("canary").exists()
        Path("canary").unlink()


@pytest.mark.parametrize(
    ("text", "code", "fact"),
    [
        (APPLY, "yaml-tag", "'tag:yaml.org,2002:python/object/apply:os.system'"),
        (TINY.replace("tiny", APPLY), "yaml-tag", ""),
        (f"{TINY}? {APPLY}\n: 1\n", "key-not-text", ""),
        (f"{TINY}<<: {{store: elsewhere}}\n", "merge-key", ""),
        (BOMB, "too-many-values", "aliases"),
        ("a: " + NESTED[:5000] + "]" * 5000, "file-not-yaml", ""),
        (TINY.replace("num_tasks: 2", f"num_tasks: {'[' * 60}{']' * 60}"), "file-not-yaml", "levels"),
        (TINY.replace("[0, 1]", f"[{DIGITS}]"), "wrong-type", "seeds[0]: "),
        (TINY.replace("[0, 1]", "[0x" + "f" * 100_000 + "]"), "wrong-type", "seeds[0]: "),
        (TINY.replace("[0, 1]", "[1" + ":59" * 5000 + "]"), "ambiguous-number", "seeds[0]: "),
        (TINY.replace("[0, 1]", "[!!int '']"), "wrong-type", "seeds[0]: "),
        (TINY.replace("num_tasks: 2", f"num_tasks: {10**200}"), "too-large", "9223372036854775807"),
        (TINY.replace("updates_per_task: 5", f"batch_size: {10**200}"), "too-large", "9223372036854775807"),
        (TINY.replace("updates_per_task: 5", "learning_rate: 1e999"), "not-finite", "learning_rate"),
        (TINY.replace("tiny", "../../x"), "name-no-filename", "name: "),
        (TINY.replace("tiny", "/etc/x"), "name-no-filename", "name: "),
        (TINY.replace("tiny", json.dumps("a\nb")), "name-no-filename", "name: "),
        (TINY.replace("tiny", json.dumps(ESCAPE)), "name-no-filename", "name: "),
        (TINY.replace("tiny", '"\\ud800"'), "wrong-type", "name: "),
        (TINY.replace("tiny", ESCAPE), "file-not-yaml", ""),
        (with_label(f"a{ESCAPE}"), "label-not-printable", ""),
        (with_label("a\nb"), "label-not-printable", ""),
        (with_label("a\u202eb"), "label-not-printable", ""),
        (with_label(f"a{ESCAPE}") + "reference: x\n", "label-not-printable unknown-name", "reference: "),
        (f"{TINY}store: {json.dumps(f'runs/{ESCAPE}')}\n", "address-not-printable", "store: "),
        (f"{TINY}store: {json.dumps(f's3://bucket/{ESCAPE}')}\n", "address-not-printable", "store: "),
        (f"{TINY}store: {'a' * 5000}\n", "folder-unreadable", ""),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_hostile_sweep_is_refused(
    *,
    crwn: Crwn,
    sweep_file: SweepFile,
    workplace: Path,
    listing: Listing,
    command: str,
    text: str,
    code: str,
    fact: str,
) -> None:
    """Without a traceback and without its control characters; nothing is run and nothing is written."""
    file = sweep_file(text)
    before = listing(workplace.parent)
    ended = crwn(command, file)
    assert (ended.code, ended.out, ended.codes) == (2, "", tuple(code.split()))
    assert ended.err.startswith("error: ")
    assert fact in ended.err
    assert "\x1b" not in ended.err
    assert listing(workplace.parent) == before


@pytest.mark.parametrize(
    ("label", "in_markdown", "in_csv"),
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>", "<img"),
        ("[a](javascript:alert(1))", "\\[a](javascript:alert(1))", "[a]("),
        ("`a` | b", "\\`a\\` \\| b", "`a` | b"),
        ("a\\", "| a\\\\ |", "a\\"),
        ("=cmd|' /C calc'!A0", "=cmd\\|' /C calc'!A0", "'=cmd|"),
        ("@SUM(A1)", "@SUM(A1)", "'@SUM"),
        ("$\\input{/etc/passwd}$", "\\$\\\\input{/etc/passwd}\\$", "$\\input"),
        ("{0.__class__} %s {{7*7}} ${HOME}", "%s {{7\\*7}} \\${HOME}", "{0.__class__} %s {{7*7}} ${HOME}"),
        ("../../x; $(touch canary)", "../../x; \\$(touch canary)", "../../x; $(touch canary)"),
    ],
)
def test_a_label_is_text_wherever_it_is_shown(
    *, crwn: Crwn, sweep_file: SweepFile, workplace: Path, label: str, in_markdown: str, in_csv: str
) -> None:
    """In Markdown no HTML and no link, in a spreadsheet no formula; on the screen as it is. It names no file."""
    sweep = load_sweep(sweep_file(with_label(label)))
    store = Store("runs/tiny")
    store.create()
    store.write_manifest(sweep.manifest())
    assert label in crwn("plan", sweep_file(with_label(label))).out
    ended = crwn("tables", "runs/tiny")
    assert ended.code == 0
    assert label in ended.out
    assert in_markdown in Path("runs/tiny/report/tiny.md").read_text()
    assert in_csv in Path("runs/tiny/report/tiny.csv").read_text()
    assert sorted(path.name for path in workplace.rglob("*") if path.is_file()) == [
        "store.json", "tiny.behind", "tiny.csv", "tiny.json", "tiny.md", "tiny.parquet", "tiny.tex"
    ]  # fmt: skip


def test_a_formula_in_a_title_is_text() -> None:
    """Matplotlib would refuse a label between dollars that is no formula, and MLflow would lack the trial."""
    import numpy as np

    assert draw_accuracy_matrix(np.eye(2), "$\\frac$ seed 0").startswith(b"\x89PNG")


# Stores


@pytest.fixture
def stranger(workplace: Path, sweep_file: SweepFile) -> Store:
    """A whole store in runs/tiny: one trial of a sweep is done, the other one failed."""
    done, failed = load_sweep(sweep_file()).trials
    store = Store("runs/tiny")
    store.create()
    store.write_manifest(load_sweep(sweep_file()).manifest())
    write_finished(store, done)
    store.unfinished.write_attempts(failed.trial_id, [Attempt(error=AttemptError(type="E", message="m"))])
    return store


def read_by_every_command(crwn: Crwn, sweep: Path) -> list[Any]:
    """What the commands say that read a store and compute nothing."""
    ended = [crwn("status", "-v", "runs/tiny"), crwn("tables", "runs/tiny"), crwn("plan", sweep)]
    for outcome in ended:
        assert "\x1b" not in outcome.out + outcome.err
        assert outcome.code in (0, 2)
        if outcome.code:
            assert outcome.err.startswith("error: ")
            assert len(outcome.err.splitlines()) == 1
    assert not Path("canary").exists()
    return ended


def manifest_with(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest | changes


def cell_with(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest | {"cells": [manifest["cells"][0] | changes]}


@pytest.mark.parametrize(
    "change",
    [
        manifest_with(name="../../evil"),
        manifest_with(name="/etc/evil"),
        manifest_with(name=["tiny"]),
        manifest_with(cells={}, reference=ESCAPE),
        manifest_with(cells=["a"]),
        manifest_with(cells=[{}]),
        cell_with(method=f"a{ESCAPE}"),
        cell_with(benchmark="a\nb"),
        cell_with(scale=7),
        cell_with(ratio="1"),
        cell_with(trials=["a"]),
        cell_with(trials={"0": "../../../home"}),
        cell_with(trials={"0": "/etc"}),
        cell_with(trials={"0": 7}),
        cell_with(trials={ESCAPE: "a"}),
        lambda manifest: [manifest],
    ],
)
def test_a_hostile_manifest_is_refused(
    *, crwn: Crwn, sweep_file: SweepFile, stranger: Store, listing: Listing, workplace: Path, change: Callable[..., Any]
) -> None:
    """Its names name files: neither tables nor marks nor trials are looked for elsewhere."""
    file = stranger.root / "sweeps" / "tiny.json"
    made = change(json.loads(file.read_text()))
    file.write_text(json.dumps(sealed(made) if isinstance(made, dict) else made))
    before = listing(workplace.parent)
    status, tables, _ = read_by_every_command(crwn, sweep_file())
    assert "tiny.json: " in status.err
    assert "tiny.json: " in tables.err
    assert listing(workplace.parent) == before


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{}",
        b'"crwn-store"',
        b'{"version": {"0": 1}}',
        NESTED.encode(),
        pickle.dumps(Hostile()),
        b'{"version": [' + b"9" * 5000 + b"]}",
    ],
)
@pytest.mark.parametrize("name", ["store.json", "sweeps/tiny.json"])
def test_json_that_is_none_or_another_is_refused(
    crwn: Crwn, sweep_file: SweepFile, stranger: Store, name: str, content: bytes
) -> None:
    """In one line that names the file."""
    (stranger.root / name).write_bytes(content)
    status, tables, _ = read_by_every_command(crwn, sweep_file())
    assert name in status.err
    assert name in tables.err


@pytest.mark.parametrize(
    "attempts",
    [
        "abc",
        {"0": 1},
        [1],
        [None],
        [{"error": "x"}],
        [{"error": []}],
        [{"error": {"type": ESCAPE, "message": [ESCAPE]}}],
        [{"error": {}}],
        [{"reached": 7}],
        [{"reached": {"step": ESCAPE}}],
    ],
)
def test_hostile_notes_of_attempts_do_no_harm(
    crwn: Crwn, sweep_file: SweepFile, stranger: Store, attempts: object
) -> None:
    """They count as none, or are shown with their control characters written out."""
    failed = load_sweep(sweep_file()).trials[1].trial_id
    (stranger.folder(failed) / ATTEMPTS_FILE).write_text(json.dumps({"attempts": attempts}))
    assert [outcome.code for outcome in read_by_every_command(crwn, sweep_file())] == [0, 0, 0]
    (stranger.folder(failed) / ATTEMPTS_FILE).write_text('{"attempts": ' + NESTED)
    assert [outcome.code for outcome in read_by_every_command(crwn, sweep_file())] == [0, 0, 0]


def rows_with(**changes: Any) -> Callable[[pa.Table], pa.Table]:
    """A record's one row with other texts."""

    def change(table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([table.to_pylist()[0] | changes], schema=TRIALS_SCHEMA)

    return change


def with_extension(table: pa.Table) -> pa.Table:
    """A column of the kind that old versions of pyarrow made by unpickling what the file says."""
    metadata = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Hostile()),
    }
    place = table.schema.get_field_index("spec")
    field = pa.field("spec", pa.binary(), metadata=metadata)
    return table.set_column(place, field, pa.array([pickle.dumps(Hostile())], pa.binary()))


def with_pandas(table: pa.Table) -> pa.Table:
    """pandas' metadata next to the columns, forged."""
    made = json.dumps({"index_columns": [CANARY], "columns": [{"pandas_type": "object", "numpy_type": "object"}]})
    return table.replace_schema_metadata({**table.schema.metadata, b"pandas": made.encode()})


@pytest.mark.parametrize(
    ("change", "is_refused"),
    [
        (with_extension, True),
        (with_pandas, False),
        (rows_with(provenance="[1]"), True),
        (rows_with(provenance=NESTED), True),
        (rows_with(numerics="{"), True),
        (rows_with(numerics='{"group_size": "x"}'), True),
        (rows_with(numerics=json.dumps({"group_size": 10**30})), True),
        (rows_with(numerics='{"threads": -1}'), True),
        (rows_with(provenance='{"train_seconds_per_task": "x"}'), True),
        (rows_with(provenance='{"device": ["y"]}'), True),
        (rows_with(provenance='{"attempts": 7}'), True),
        (rows_with(provenance='{"attempts": [{"started": "yesterday"}]}'), True),
        (rows_with(provenance='{"attempts": [{"started": "2026-02-30T00:00:00"}]}'), True),
        (rows_with(provenance='{"versions": 5}'), True),
        (rows_with(provenance='{"versions": {"torch": 5}}'), True),
        (rows_with(provenance='{"peak_memory_bytes": 1e400}'), True),
        (rows_with(provenance='{"host": "a", "host": "b"}'), True),
        (rows_with(fingerprint=None), True),
        (rows_with(accuracy=None), True),
        (rows_with(trial_id=None), True),
        (rows_with(spec=None), True),
        (rows_with(spec="{}"), True),
        (rows_with(spec='{"method": {"kind": 7}, "benchmark": {}, "scale": "FC16", "training": {}}'), True),
        (lambda table: pa.concat_tables([table, table]), True),
        (lambda table: table.slice(0, 0), True),
        (rows_with(provenance=json.dumps({"device": f"<b>{ESCAPE}", "train_seconds_per_task": 1})), False),
        (rows_with(provenance='{"train_seconds_per_task": NaN}'), True),
        (rows_with(provenance="{}"), False),
        (lambda table: table.append_column("spec", table["spec"]), True),
        (lambda table: table.set_column(table.schema.get_field_index("seed"), "seed", [["x"]]), True),
    ],
)
def test_a_hostile_record_runs_nothing(
    crwn: Crwn,
    sweep_file: SweepFile,
    stranger: Store,
    change: Callable[[pa.Table], pa.Table],
    *,
    is_refused: bool,
) -> None:
    """Whatever its columns and its metadata claim to be; what can be read is shown as text."""
    done = load_sweep(sweep_file()).trials[0].trial_id
    file = stranger.folder(done) / TRIAL_FILE
    make_older(file, change)  # without sums, so that all of it is read
    _, tables, _ = read_by_every_command(crwn, sweep_file())
    assert ("trial.parquet: " in tables.err) == is_refused
    assert (tables.code == 2) == is_refused


MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\" onclick='alert(1)' </style>"


class Elements(html.parser.HTMLParser):
    """Notes what of a page could act: its elements' attributes, and how many scripts it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def test_a_page_over_a_strangers_store_acts_no_more_than_any(
    crwn: Crwn, sweep_file: SweepFile, stranger: Store
) -> None:
    """Whatever labels, errors and records say is text on it: one script, ours, and no address but its own."""
    change = rows_with(
        provenance=json.dumps({"device": MARKUP, "host": MARKUP, "commit": MARKUP, "versions": {"torch": MARKUP}}),
        numerics=json.dumps({"device": MARKUP, "kernel": MARKUP}),
        **dict.fromkeys(("variant", "grouping", "fingerprint"), MARKUP),  # other names are those of its spec
    )
    done, failed = (trial.trial_id for trial in load_sweep(sweep_file()).trials)
    file = stranger.folder(done) / TRIAL_FILE
    file.write_bytes(parquet_files.dump(change(pq.ParquetFile(file).read())))  # a stranger has sums, too
    manifest = json.loads((stranger.root / "sweeps" / "tiny.json").read_text())
    manifest["cells"][0] |= {"method": MARKUP, "benchmark": MARKUP, "variant": MARKUP}
    (stranger.root / "sweeps" / "tiny.json").write_text(json.dumps(sealed(manifest)))
    stranger.unfinished.write_attempts(failed, [Attempt(error=AttemptError(type=MARKUP, message=MARKUP))])
    ended = crwn("report", "runs/tiny")
    assert (ended.code, ended.err) == (0, "")
    page = Elements((stranger.root / "report" / "report.html").read_text())
    assert page.tags.count("script") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    addresses = [value for name, value in page.attributes if name in ("href", "src")]
    assert addresses
    assert not [address for address in addresses if not address.startswith(("#", "data:"))]
    assert not {"iframe", "object", "embed", "base", "form"} & set(page.tags)
    for path in (stranger.root / "report" / "figures").glob("*.svg"):
        figure = Elements(path.read_text())
        assert "script" not in figure.tags
        assert not [name for name, _ in figure.attributes if name.startswith("on")]
    assert not Path("canary").exists()


@pytest.mark.parametrize("content", [pickle.dumps(Hostile()), b"PAR1" + b"\xff" * 100 + b"PAR1", b""])
def test_a_record_that_is_no_parquet_is_refused(
    crwn: Crwn, sweep_file: SweepFile, stranger: Store, content: bytes
) -> None:
    """A pickle under a record's name is not unpickled."""
    done = load_sweep(sweep_file()).trials[0].trial_id
    (stranger.folder(done) / TRIAL_FILE).write_bytes(content)
    _, tables, _ = read_by_every_command(crwn, sweep_file())
    assert "trial.parquet: " in tables.err
    assert tables.codes == ("record-unreadable",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Hostile()),
        b"PK\x03\x04",  # how torch.save's files begin
        b"\xff" * 8 + b"{}",
        (2**40).to_bytes(8, "little") + b"{}",
        len(NESTED).to_bytes(8, "little") + NESTED.encode(),
        b"",
    ],
)
def test_a_hostile_resume_point_is_discarded(
    crwn: Crwn, sweep_file: SweepFile, stranger: Store, content: bytes
) -> None:
    """The trial starts again and succeeds; every command treats such a context bank as bytes."""
    done, failed = (trial.trial_id for trial in load_sweep(sweep_file()).trials)
    (stranger.folder(failed) / RESUME_FILE).write_bytes(content)
    make_older(stranger.folder(done) / TRIAL_FILE)  # which names no bytes
    (stranger.folder(done) / CONTEXTS_FILE).write_bytes(content)
    ended = crwn("run", sweep_file(), "--executor", "inline", "--no-tracking")
    assert ended.code == 0, ended.err
    assert stranger.all_attempts(failed)[-1].discarded_resume_point
    assert projection.artifacts(stranger, done, "done")[f"contexts/{CONTEXTS_FILE}"] == content
    assert not Path("canary").exists()


# Links


@pytest.mark.parametrize(
    "link",
    [
        "store.json", "sweeps", "sweeps/tiny.json", "trials", "trials/DONE", "trials/DONE/trial.parquet",
        "trials/FAILED", "trials/FAILED/attempts.json", "trials/FAILED/resume.safetensors", "report", ".lock",
    ],
)  # fmt: skip
def test_a_link_in_a_store_leads_nowhere(
    *, crwn: Crwn, sweep_file: SweepFile, stranger: Store, listing: Listing, tmp_path: Path, link: str
) -> None:
    """What is behind one, though it looks like the store's own, is neither read nor written nor removed."""
    done, failed = (trial.trial_id for trial in load_sweep(sweep_file()).trials)
    place = stranger.root / link.replace("DONE", done).replace("FAILED", failed)
    outside = tmp_path / "outside"
    if place.exists():
        shutil.move(place, outside)
    elif link == "report":
        outside.mkdir()
    else:
        outside.write_text("valuable")
    place.symlink_to(outside)
    before = listing(tmp_path / "outside") if outside.is_dir() else {"": outside.read_bytes()}
    read_by_every_command(crwn, sweep_file())
    ended = crwn("run", sweep_file(), "--executor", "inline", "--no-tracking")
    assert all(fact in ended.out + ended.err for fact in (place.name, "link"))
    assert ended.code in (1, 2)
    assert (listing(tmp_path / "outside") if outside.is_dir() else {"": outside.read_bytes()}) == before


def test_a_table_that_is_a_link_is_replaced(crwn: Crwn, stranger: Store, tmp_path: Path) -> None:
    """The link is, and not what it leads to."""
    valuable = tmp_path / "valuable"
    valuable.write_text("mine")
    (stranger.root / "report").mkdir()
    (stranger.root / "report" / "tiny.md").symlink_to(valuable)
    assert crwn("tables", "runs/tiny").code == 0
    assert valuable.read_text() == "mine"
    assert (stranger.root / "report" / "tiny.md").read_text().startswith("# tiny")


def test_a_file_of_this_machine_is_not_shown_in_mlflow(stranger: Store, sweep_file: SweepFile, tmp_path: Path) -> None:
    """A link in place of contexts would expose it to readers of a shared MLflow."""
    done = load_sweep(sweep_file()).trials[0].trial_id
    (tmp_path / "id_ed25519").write_text("a key")
    (stranger.folder(done) / CONTEXTS_FILE).unlink()
    (stranger.folder(done) / CONTEXTS_FILE).symlink_to(tmp_path / "id_ed25519")
    with refused(UserError, "link-leads-out", says="contexts.safetensors: "):
        projection.artifacts(stranger, done, "done")


def test_a_store_may_be_a_link_itself(crwn: Crwn, sweep_file: SweepFile, stranger: Store, tmp_path: Path) -> None:
    """That one is the user's, who keeps it on another disk."""
    shutil.move(stranger.root, tmp_path / "disk")
    stranger.root.symlink_to(tmp_path / "disk")
    assert [outcome.code for outcome in read_by_every_command(crwn, sweep_file())] == [0, 0, 0]
