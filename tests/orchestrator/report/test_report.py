"""Tables as files: Markdown for people, CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from crwn import contexts
from crwn.code import Code
from crwn.testing import MADE_UP_CODE, Conditions, finished_record, new_store, tiny_trial, write_finished, write_sweep
from orchestrator.errors import UserError
from orchestrator.report.figures import matrix_csv
from orchestrator.report.page import report_files
from orchestrator.report.plain import csv_text
from orchestrator.report.printable import Table, markdown, table_files
from orchestrator.report.sweep_tables import SweepTable, comparison_table, sweep_table, sweep_trials
from orchestrator.report.tables import Choice, differences, tables_of, write_tables
from orchestrator.store.address import open_files
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.schemas import CONTEXTS_FILE, TRIAL_FILE
from orchestrator.store.store import Store
from tests.older_records import make_older
from tests.orchestrator.made_up import A, B, C, D, record
from tests.refusals import refused
from tests.said import SAMPLE_DEVIATION, differs, noted


def manifest(name: str = "small", **changes: Any) -> Manifest:
    """A sweep of one cell with two seeds."""
    names = {"method": "own name", "variant": "", "scale": "FC16", "benchmark": "r-digits"}
    return Manifest(name=name, cells=(ManifestCell(**{**names, "trials": {0: A, 1: B}, **changes}),))


def text_table(columns: list[str], *rows: list[str], name: str = "small") -> SweepTable:
    """A table as text."""
    summary = pd.DataFrame({"continual": [True]})
    return SweepTable(name=name, summary=summary, table=pd.DataFrame(list(rows), columns=columns))


def tables_in(store: Store, folder: Path) -> list[Path]:
    """Writes the store's tables into a folder and gives the files."""
    return [Path(file) for file in write_tables(store, open_files(folder))]


def test_a_table_is_made_from_the_store(store: Store) -> None:
    """The sweep's own names, the store's numbers, and the training time of one task."""
    store.records.write(A, record(A, 0.5))
    store.records.write(B, record(B, 0.75, Conditions(task_seconds=3.0, device_name="NVIDIA H100")))
    table = sweep_table(store, manifest())
    (row,) = table.summary.to_dict("records")
    assert (row["method"], row["accuracy"], row["n"]) == ("own name", 0.625, 2)
    assert row["train_seconds_per_task"] == 2.0
    assert table.table.to_dict("records") == [
        {
            "method": "own name",
            "scale": "FC16",
            "r-digits": "62.50 ± 17.68 (n=2)",
            "params/task": "99",
            "s/task": "2 (2)",
        }
    ]
    assert SAMPLE_DEVIATION in table.caption
    assert table.caption.endswith("mean over seeds; on AVX512 and NVIDIA H100.")


def test_a_table_of_a_sweep_with_no_result_shows_what_is_missing(store: Store) -> None:
    """A sweep of which nothing is finished has a table too."""
    assert sweep_table(store, manifest()).table["r-digits"].tolist() == ["- (0/2)"]


def test_a_table_is_made_from_records_without_the_later_measures(store: Store) -> None:
    """Records of an older crwn have neither forgetting nor backward transfer; with newer ones, there is no mean."""
    first, second = (tiny_trial("psp", seed=seed) for seed in (0, 1))
    for spec in (first, second):
        write_finished(store, spec, [[0.75, 0.0], [0.5, 0.5]])
    both = manifest(trials={0: first.trial_id, 1: second.trial_id})
    path = store.folder(first.trial_id) / TRIAL_FILE
    make_older(path, lambda table: table.drop_columns(["forgetting", "backward_transfer"]))
    (row,) = sweep_table(store, both).summary.to_dict("records")
    assert (row["accuracy"], row["n"]) == (0.5, 2)
    assert math.isnan(row["forgetting"])
    assert math.isnan(row["backward_transfer"])
    (newer,) = sweep_table(store, manifest(trials={1: second.trial_id})).summary.to_dict("records")
    assert (newer["forgetting"], newer["backward_transfer"]) == (0.25, -0.25)


def test_each_sweep_has_a_file_of_every_format(store: Store, tmp_path: Path) -> None:
    """Named after the sweep, in a folder that is made; making them again gives the same bytes."""
    store.records.write(A, record(A))
    for name in ("second", "first"):
        store.write_manifest(manifest(name))
    folder = tmp_path / "deep" / "tables"
    files = tables_in(store, folder)
    endings = ("md", "csv", "tex", "parquet")
    assert files == [folder / f"{name}.{ending}" for name in ("first", "second") for ending in endings]
    before = [file.read_bytes() for file in files]
    assert tables_in(store, folder) == files
    assert [file.read_bytes() for file in files] == before


def test_markdown_is_a_heading_the_caption_and_the_table(store: Store, tmp_path: Path) -> None:
    """The file can be pasted into a document."""
    store.records.write(A, record(A))
    store.write_manifest(manifest())
    table = sweep_table(store, manifest())
    text = tables_in(store, tmp_path / "tables")[0].read_text(encoding="utf-8")
    assert text.splitlines() == [
        "# small",
        "",
        table.caption,
        "",
        "| method | scale | r-digits | params/task | s/task |",
        "| --- | --- | --- | --- | --- |",
        "| own name | FC16 | 50.00 ± - (1/2) | 99 | 1 (2) |",
    ]


def test_markdown_keeps_its_columns_whatever_the_names() -> None:
    """A bar in a name does not begin a column."""
    text = markdown(text_table(["method", "a|b"], ["x|y|z", "1"]))
    assert text.splitlines()[-3:] == ["| method | a\\|b |", "| --- | --- |", "| x\\|y\\|z | 1 |"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("_ours_", r"\_ours\_"),
        ("own_name", "own_name"),
        ("*a* ~b~ $c$", r"\*a\* \~b\~ \$c\$"),
        ("&lt; & <b>", "&amp;lt; & &lt;b>"),
        ("`[x](y)` \\", r"\`\[x](y)\` \\"),
        ("two\nlines\x1b", r"two lines\\x1b"),
        ("- (0/3)", "- (0/3)"),
    ],
)
def test_a_text_in_markdown_is_nothing_but_text(text: str, shown: str) -> None:
    """No emphasis, formula, entity, code or link, and in one line."""
    assert markdown(text_table(["method"], [text])).splitlines()[-1] == f"| {shown} |"


@pytest.mark.parametrize(
    ("note", "shown"), [("# x", r"\# x"), ("- x", r"\- x"), ("1. x", r"1\. x"), ("1.5 x", "1.5 x")]
)
def test_a_note_is_no_heading_and_no_list(note: str, shown: str) -> None:
    """Whatever the label with which it begins."""
    table = Table(name="t", summary=pd.DataFrame(), table=pd.DataFrame({"a": ["1"]}), caption="", notes=[note])
    assert markdown(table).splitlines()[-1] == f"- {shown}"


def test_no_text_in_a_csv_is_a_formula_and_each_comes_back() -> None:
    """What a spreadsheet would compute has a quote in front; one quote less gives every text as it was."""
    texts = ["=1+1", "+x", "-x", "@x", "'-x", "''", "\uff1dx", "x=1", "a,b", 'a"b']
    read = list(csv.reader(io.StringIO(csv_text(pd.DataFrame({"=name": texts, "number": -1.5})))))
    assert read[0] == ["'=name", "number"]
    assert [row[0].removeprefix("'") for row in read[1:]] == texts
    assert not any(row[0].startswith(("=", "+", "-", "@", "\uff1d")) for row in read)
    assert {row[1] for row in read[1:]} == {"-1.5"}


def test_tables_that_would_be_called_the_same_have_files_of_their_own() -> None:
    """A sweep may be called as another one's ablations are, and two may differ by capitals alone."""
    more = [
        Table(name=name, summary=pd.DataFrame(), table=pd.DataFrame({"a": ["1"]}), caption="") for name in ("a.ranks",)
    ]
    tables = [text_table(["method"], ["x"], name=name) for name in ("a", "A", "a.ranks")]
    files = table_files([*tables, *more])
    assert len({name.casefold() for name in files}) == 16
    assert {"a.md", "a.ranks.tex"} <= set(files)
    assert files["a.ranks.md"].startswith(b"# a.ranks\n\n\n")


def test_csv_has_every_digit(store: Store, tmp_path: Path) -> None:
    """Numbers come back from the file as they were, and what is not known is empty."""
    accuracy = 1 / 3 + 1e-16
    store.records.write(A, record(A, accuracy))
    store.write_manifest(manifest(variant="a, b"))
    file = tables_in(store, tmp_path / "tables")[1]
    (row,) = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))
    assert float(row["accuracy"]) == accuracy
    assert (row["sd"], row["ci95"], row["variant"]) == ("", "", "a, b")
    assert (row["n"], row["asked"], row["missing_seeds"]) == ("1", "2", "1")
    assert list(row) == [
        "method",
        "variant",
        "scale",
        "benchmark",
        "n",
        "asked",
        "accuracy",
        "sd",
        "ci95",
        "forgetting",
        "backward_transfer",
        "params_per_task",
        "trained_per_task",
        "stored_per_task",
        "ratio",
        "train_seconds_per_task",
        "group_sizes",
        "devices",
        "continual",
        "missing_seeds",
        "failed_seeds",
        "invalid_seeds",
        "mixed",
        "noted",
        "code_changes",
        "errors",
        "accuracy_told",
        "accuracy_told_sd",
        "incremental_accuracy",
        "forgetting_sd",
        "can_forget",
        "examples_kept",
        "stored_memory",
    ]
    assert (row["continual"], row["ratio"]) == ("True", "")  # the manifest is an older one


def test_groups_of_classes_and_streams_have_tables_figures_and_a_page(store: Store) -> None:
    """With both figures of classes and what was forgotten; a stream has an accuracy, and no matrix or curve by task."""
    specs = [tiny_trial("finetune", benchmark=name) for name in ("seq-digits", "digits-360", "r-digits")]
    write_finished(store, specs[0], [[0.5, 0.0], [0.25, 0.75]])
    for spec in specs[1:]:
        write_finished(store, spec, 0.5)
    write_sweep(store, specs)
    (row,) = tables_of([store])[0].table.to_dict("records")
    assert [row[f"{kind}-digits"] for kind in ("sequential", "turning", "rotated")] == ["50.00 ± - (n=1)"] * 3
    assert (row["masked"], row["forgetting"]) == ("75.00 / - / -", "25.00 / - / 0.00")
    files = report_files([store], formats=("svg",))
    figures = {name.split("/")[-1].removeprefix("small-") for name in files if name.endswith(".svg")}
    assert {"turning-digits-tasks.svg", "sequential-digits-seen.svg", "sequential-digits-matrix.svg"} < figures
    assert not {"turning-digits-seen.svg", "turning-digits-matrix.svg"} & figures


def test_a_trial_that_went_on_under_other_code_is_marked_in_every_table(store: Store, tmp_path: Path) -> None:
    """As Markdown and LaTeX; the sweep's, a comparison, any rows and columns. CSV files have a column that says it."""
    older = Conditions(versions=(("torch", "2.10.0"),), code=Code(method="a" * 16, crwn="1" * 16, results_version=1))
    for trial_id, accuracy, before in ((A, 0.5, older), (B, 0.75, None), (C, 0.5, None), (D, 0.75, older)):
        store.records.write(trial_id, record(trial_id, accuracy, Conditions(before=before)))
    both = replace(manifest(), cells=(*manifest().cells, *manifest(method="other", trials={0: C, 1: D}).cells))
    store.write_manifest(both)
    changes = "torch 2.10.0 -> 2.11.0, other code of the method"
    made = [file for file in tables_in(store, tmp_path / "tables") if file.suffix != ".parquet"]
    files = {file.suffix: file.read_text(encoding="utf-8") for file in made}
    assert "62.50 ± 17.68 (n=2)\\* |" in files[".md"]
    assert f"seed 0: {changes}." in files[".md"].replace("\\", "").replace("&gt;", ">")
    assert r"\num{62.50 \pm 17.68}{*} &" in files[".tex"]
    first, second = csv.DictReader(io.StringIO(files[".csv"]))
    assert (first["code_changes"], second["code_changes"]) == (f"seed 0: {changes}", f"seed 1: {changes}")
    against = comparison_table(both, sweep_trials(store, both), "other")
    (shown,) = against.table["difference"]
    assert shown.endswith("(n=2)*")
    for fact in (f"seed 0: {changes}", f"seed 1: {changes}"):
        assert fact in against.notes[0]
    choice = Choice(rows=("method",), columns="benchmark", value="accuracy")
    (any_rows,) = tables_of([store], choice)
    assert any_rows.table["r-digits"].tolist() == ["62.50 ± 14.43 (n=4)*"]
    assert any_rows.notes[0].startswith("neuromodnet, r-digits, marked *:")
    (unmarked,) = tables_of([store], replace(choice, where=("code_changes=",)))
    assert unmarked.table["r-digits"].tolist() == ["62.50 ± 17.68 (n=2)"]


def test_records_of_an_older_crwn_have_no_mark(store: Store) -> None:
    """They say nothing of their code, which agrees with anything; that it is not known is noted."""
    for trial_id in (A, B):
        store.records.write(trial_id, record(trial_id))
    path = store.folder(A) / TRIAL_FILE

    def without_code(table: pa.Table) -> pa.Table:
        origin = json.loads(table["provenance"][0].as_py())
        kept = {name: value for name, value in origin.items() if not name.startswith("code")}
        for attempt in kept["attempts"]:
            del attempt["code"], attempt["versions"]
        place = table.schema.get_field_index("provenance")
        return table.set_column(place, table.schema.field(place), pa.array([json.dumps(kept)]))

    make_older(path, without_code)
    table = sweep_table(store, manifest())
    assert table.table["r-digits"].tolist() == ["50.00 ± 0.00 (n=2)"]
    (note,) = table.notes
    assert f"{noted('code.method', 1)}, {noted('code.results_version', 1)}" in note
    (said,) = table.summary["noted"]
    assert differs("code.method", "unknown (seed 0)", f"{MADE_UP_CODE.method} (seed 1)") in said


def test_csv_has_what_a_manifest_and_the_records_say(store: Store, tmp_path: Path) -> None:
    """The ratio in full, whether the method is continual, and measures; empty where a record has null."""
    spec = tiny_trial("psp")
    write_finished(store, spec, [[0.875, 0.0], [0.5, 0.5]])
    make_older(store.folder(spec.trial_id) / TRIAL_FILE, lambda table: table.drop_columns(["backward_transfer"]))
    store.write_manifest(manifest(continual=False, ratio=2 / 3, trials={0: spec.trial_id}))
    (row,) = csv.DictReader(io.StringIO(tables_in(store, tmp_path / "tables")[1].read_text(encoding="utf-8")))
    assert (float(row["ratio"]), float(row["forgetting"])) == (2 / 3, 0.375)
    assert (row["continual"], row["backward_transfer"], row["method"]) == ("False", "", "own name")


def test_markdown_says_what_is_not_continual_and_what_a_ratio_is_to(store: Store, tmp_path: Path) -> None:
    """In the row and in the caption: who reads the table alone must not take MTL for a peer."""
    store.records.write(A, record(A))
    store.write_manifest(replace(manifest(continual=False, ratio=1.0, trials={0: A}), reference="own name"))
    lines = tables_in(store, tmp_path / "tables")[0].read_text(encoding="utf-8").splitlines()
    assert lines[-3:] == [
        "| method | scale | r-digits | params/task | ratio | s/task |",
        "| --- | --- | --- | --- | --- | --- |",
        "| own name (not continual) | FC16 | 50.00 ± - (n=1) | 99 | 1 | 1 (2) |",
    ]
    for fact in (" ratio: params/task ", " own name."):
        assert fact in lines[2]
    assert lines[2].endswith(" (not continual): all tasks are learned jointly.")


def test_the_caption_says_nothing_of_what_is_not_there(store: Store) -> None:
    """Without a reference, of continual methods, on test images, as in a manifest of an older version."""
    for said in ({}, {"continual": True, "validation": 0, "params_per_task": 99.0, "ratio": None}):
        caption = sweep_table(store, manifest(**said)).caption
        assert caption.endswith("params/task in the paper's convention.")
        assert "continual" not in caption


def test_the_caption_names_the_benchmarks_that_are_no_test_set(store: Store) -> None:
    """By the sweep's own labels, each once, and not those on test images."""
    cells = [
        manifest(method=method, benchmark=benchmark, validation=validation).cells[0]
        for method in ("a", "b")
        for benchmark, validation in (("held out", 100), ("r-digits", 0), ("also held out", 5))
    ]
    table = sweep_table(store, replace(manifest(), cells=tuple(cells)))
    assert table.validation == ("held out", "also held out")
    told = "Tested on held-out training images, not on the test set: held out, also held out."
    assert table.caption.endswith(told)


def test_a_store_without_a_sweep_has_no_tables(store: Store, tmp_path: Path) -> None:
    """Nothing is written, and the message says how to start."""
    with refused(UserError, "store-empty", says=["store: ", "crwn run"]):
        tables_in(store, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_a_folder_that_cannot_be_written_is_named(store: Store, tmp_path: Path) -> None:
    """For example, if there is a file in its place."""
    store.write_manifest(manifest())
    (tmp_path / "file").touch()
    with refused(UserError, "folder-not-writable", says=["file/tables: ", "--to"]):
        tables_in(store, tmp_path / "file" / "tables")


def test_a_matrix_as_csv_has_a_row_for_each_number_of_tasks_learned() -> None:
    """Counted from 1, with every digit; empty where a task was not tested."""
    matrix = np.array([[1 / 3, np.nan], [0.25, 1.0]])
    assert matrix_csv(matrix) == "tasks learned,task 1,task 2\n1,0.3333333333333333,\n2,0.25,1.0\n"


def test_a_diff_looks_at_contexts_too(store: Store, tmp_path: Path) -> None:
    """Equal accuracies with other contexts are not equal to the last bit, and damaged ones are not compared."""
    specs = [tiny_trial(seed=seed) for seed in range(2)]
    other = new_store(tmp_path / "other")
    for each in (store, other):
        for spec in specs:
            write_finished(each, spec)
    assert set(differences(store, other, (), 0.001).trials["state"]) == {"same"}
    whole = finished_record(specs[0])
    changed = contexts.load(whole.contexts)
    tensors = {name: tensor + 1 for name, tensor in changed.tensors.items()}
    content = contexts.dump([tensors], {}, specs[0], changed.fingerprint)
    other.records.write(specs[0].trial_id, replace(whole, contexts=content))
    found = differences(store, other, (), 0.001)
    assert sorted(found.trials["state"]) == ["noise", "same"]
    path = store.folder(specs[1].trial_id) / CONTEXTS_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with refused(UserError, "made-with-others", says=str(path)):
        differences(store, other, (), 0.001)
