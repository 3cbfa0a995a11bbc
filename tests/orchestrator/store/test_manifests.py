"""A store's manifests of sweeps: read strictly, and written as before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from crwn.spec import trial_id_of
from orchestrator.errors import UserError
from orchestrator.store.json_fields import MAX_TEXT, SUM, sealed
from orchestrator.store.manifests import Manifest, ManifestCell
from orchestrator.store.recorded_spec import RecordedSpec
from tests.refusals import refused

SPEC = {
    "method": {"kind": "supsup"},
    "benchmark": {"kind": "rotated", "base": "digits", "num_tasks": 2},
    "scale": "FC16",
    "training": {"learning_rate": 0.01},
}
OTHER_SPEC = {**SPEC, "method": {"kind": "mtl", "pretrained": True}}


def trials(spec: Mapping[str, Any], *seeds: int) -> dict[int, str]:
    """The trials of settings, by seed."""
    texts = {seed: json.dumps({**spec, "seed": seed}, sort_keys=True, separators=(",", ":")) for seed in seeds}
    return {seed: trial_id_of(text) for seed, text in texts.items()}


FIRST = ManifestCell(
    method="own name",
    variant="local",
    scale="FC16",
    benchmark="r",
    trials=trials(SPEC, 0, 1, 10),
    params_per_task=1299.0,
    ratio=0.25,
    spec=RecordedSpec(SPEC),
    base="local",
)
SECOND = ManifestCell(
    method="mtl",
    variant="",
    scale="FC16",
    benchmark="r",
    trials=trials(OTHER_SPEC, 0),
    continual=False,
    validation=100,
    params_per_task=99.5,
    spec=RecordedSpec(OTHER_SPEC),
)
MANIFEST = Manifest(name="small", cells=(FIRST, SECOND), reference="mtl")

Change = Callable[[dict[str, Any]], Any]


def read(content: bytes, name: str = "small") -> Manifest:
    return Manifest.from_json(content, name=name, place=f"store/sweeps/{name}.json")


def changed(change: Change) -> bytes:
    """The manifest's JSON with a change that its sum takes in."""
    content = change(MANIFEST.content())
    return json.dumps(sealed(content) if isinstance(content, dict) else content).encode()


def unsealed(change: Change) -> bytes:
    """As an older crwn wrote it, without a sum."""
    return json.dumps(change(MANIFEST.content())).encode()


def at_top(**changes: Any) -> Change:
    return lambda manifest: manifest | changes


def in_cell(**changes: Any) -> Change:
    return lambda manifest: manifest | {"cells": [manifest["cells"][0] | changes, *manifest["cells"][1:]]}


def in_spec(**changes: Any) -> Change:
    return in_cell(spec={**SPEC, **changes})


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 0


def test_a_manifest_is_read_as_it_was_written() -> None:
    """In every field and in order, and an equal one is equal bytes."""
    found = read(MANIFEST.to_json_bytes())
    assert found == MANIFEST
    assert [cell.method for cell in found.cells] == ["own name", "mtl"]
    assert found.to_json_bytes() == MANIFEST.to_json_bytes()
    assert found.trial_ids == [*trials(SPEC, 0, 1, 10).values(), *trials(OTHER_SPEC, 0).values()]
    assert [(cell.method, seed) for cell, seed, _ in found.trials()] == [
        *(("own name", seed) for seed in (0, 1, 10)),
        ("mtl", 0),
    ]
    assert found.has_sum


def test_changes_of_the_command_line_are_read_as_they_were_written() -> None:
    """A manifest without any has no such key, and so the bytes that it always had."""
    changed = replace(MANIFEST, changes=("seeds=[0]", "methods.mtl.scales=[FC16]"))
    assert Manifest.from_json(changed.to_json_bytes(), name="small", place="m.json") == changed
    assert b"changes" not in MANIFEST.to_json_bytes()


def test_a_cell_is_called_by_what_it_has() -> None:
    """An empty part leaves no gap."""
    assert (FIRST.row_name, SECOND.row_name) == ("own name local FC16", "mtl FC16")
    assert FIRST.names == {"method": "own name", "variant": "local", "scale": "FC16", "benchmark": "r"}


def without(*names: str) -> Change:
    """The manifest without fields, in its cells and at its top."""

    def change(manifest: Mapping[str, Any]) -> dict[str, Any]:
        cells = [{name: value for name, value in cell.items() if name not in names} for cell in manifest["cells"]]
        return {name: value for name, value in {**manifest, "cells": cells}.items() if name not in names}

    return change


def test_an_older_manifest_is_read() -> None:
    """The first ones had names and trials alone: their methods were continual and tested on test images."""
    oldest = without("continual", "validation", "params_per_task", "ratio", "spec", "base", "reference")
    first, _ = read(unsealed(oldest)).cells
    assert first == replace(FIRST, params_per_task=None, ratio=None, spec=None, base=None)
    assert (first.continual, first.validation) == (True, 0)
    assert (read(unsealed(oldest)).reference, read(unsealed(oldest)).has_sum) == (None, False)
    second = read(unsealed(without("spec", "base"))).cells[1]
    assert second == replace(SECOND, spec=None)


def test_fields_of_a_newer_crwn_are_left_aside() -> None:
    """A minor version only adds some; what is known of them is as it was."""
    newer = read(changed(lambda manifest: {**in_cell(color="red")(manifest), "later": [{"a": 1}]}))
    assert newer == MANIFEST


@pytest.mark.parametrize(
    ("change", "place"),
    [(at_top(sha257="0" * 64), "'sha257': "), (in_cell(ratoi=0.5), "cells[0].'ratoi': ")],
)
def test_a_damaged_key_makes_no_older_manifest(change: Change, place: str) -> None:
    """Without a sum nothing is newer: a key that is not known was another one."""
    with refused(UserError, "unknown-key", says=place):
        read(unsealed(change))


def test_a_manifest_that_was_changed_by_hand_is_refused() -> None:
    """A label is no more than a text to every other check."""
    content = MANIFEST.to_json_bytes().replace(b'"own name"', b'"own game"')
    with refused(UserError, "content-changed"):
        read(content)


@pytest.mark.parametrize("value", [None, 7, "", "0" * 64, ["0" * 64]])
def test_a_sum_that_is_none_is_not_the_contents(value: object) -> None:
    """Only where the whole key is absent is there no sum."""
    with refused(UserError, "content-changed"):
        read(json.dumps({**MANIFEST.content(), SUM: value}).encode())


def test_a_flipped_bit_is_refused_or_changes_nothing() -> None:
    """300 of them, seed 0: in one line, and never a manifest that says something else."""
    content = MANIFEST.to_json_bytes()
    for place in np.random.default_rng(0).choice(8 * len(content), 300, replace=False).tolist():
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        try:
            assert read(bytes(damaged)) == MANIFEST
        except UserError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 (some are refused, and some need not be)


def test_a_flipped_bit_in_the_sums_own_key_is_refused() -> None:
    """All 48 of them: it would look like an older manifest, which has no sum."""
    content = MANIFEST.to_json_bytes()
    begin = content.index(b"sha256")
    for place in range(8 * begin, 8 * (begin + len("sha256"))):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(UserError) as caught:
            read(bytes(damaged))
        assert caught.value.codes in {("unknown-key",), ("json-unreadable",)}  # the highest bit makes it no UTF-8


@pytest.mark.parametrize(
    ("change", "code", "facts"),
    [
        (lambda _: ["small"], "wrong-type", ["at the top: ", "given ['small']"]),
        (at_top(format="1"), "not-a-count", ["format: ", "given '1'"]),
        (at_top(format=True), "not-a-count", ["format: ", "given True"]),
        (without("format"), "missing-key", ["format: "]),
        (at_top(name="large"), "manifest-of-another-sweep", ["'large'"]),
        (at_top(name=["small"]), "manifest-of-another-sweep", ["['small']"]),
        (at_top(changes="a=b"), "text-not-printable", ["changes: ", "given 'a=b'"]),
        (at_top(changes=["a=\n"]), "text-not-printable", ["changes: "]),
        (at_top(reference=7), "text-not-printable", ["reference: ", "given 7"]),
        (at_top(reference="x"), "reference-unknown", ["reference: ", "given 'x'"]),
        (at_top(reference=""), "text-not-printable", ["reference: ", "given ''"]),
        (at_top(cells={}), "no-cells", ["cells: ", "given {}"]),
        (at_top(cells=[]), "no-cells", ["cells: ", "given []"]),
        (at_top(cells=[None]), "wrong-type", ["cells[0]: ", "given None"]),
        (without("scale"), "missing-key", ["cells[0].scale: "]),
        (in_cell(method=""), "text-not-printable", ["cells[0].method: ", "given ''"]),
        (in_cell(method="a\x1bb"), "text-not-printable", ["cells[0].method: ", "given 'a\\x1bb'"]),
        (in_cell(variant="x" * (MAX_TEXT + 1)), "text-not-printable", ["cells[0].variant: "]),
        (in_cell(benchmark=["r"]), "text-not-printable", ["cells[0].benchmark: ", "given ['r']"]),
        (in_cell(base="full"), "base-unknown", ["cells[0].base: ", "given 'full'"]),
        (in_cell(base=False), "text-not-printable", ["cells[0].base: ", "given False"]),
        (in_cell(continual=1), "wrong-type", ["cells[0].continual: ", "given 1"]),
        (in_cell(continual=None), "wrong-type", ["cells[0].continual: ", "given None"]),
        (in_cell(validation=-1), "not-a-count", ["cells[0].validation: ", "given -1"]),
        (in_cell(validation=0.0), "not-a-count", ["cells[0].validation: ", "given 0.0"]),
        (in_cell(validation=2**63), "not-a-count", ["cells[0].validation: ", "given 92233"]),
        (in_cell(params_per_task=True), "not-a-quantity", ["cells[0].params_per_task: ", "given True"]),
        (in_cell(params_per_task="9"), "not-a-quantity", ["cells[0].params_per_task: ", "given '9'"]),
        (in_cell(params_per_task=10**400), "not-a-quantity", ["cells[0].params_per_task: ", "given 1"]),
        (in_cell(ratio=-0.5), "not-a-quantity", ["cells[0].ratio: ", "given -0.5"]),
        (in_cell(trials=[]), "no-trials", ["cells[0].trials: ", "given []"]),
        (in_cell(trials={"zero": "0" * 16}), "seed-not-whole", ["cells[0].trials: ", "given 'zero'"]),
        (in_cell(trials={"00": "0" * 16}), "seed-not-whole", ["cells[0].trials: ", "given '00'"]),
        (in_cell(trials={"-1": "0" * 16}), "seed-not-whole", ["cells[0].trials: ", "given '-1'"]),
        (in_cell(trials={"\u0661": "0" * 16}), "seed-not-whole", ["cells[0].trials: ", "given '\u0661'"]),
        (in_cell(trials={str(2**63): "0" * 16}), "seed-not-whole", ["cells[0].trials: ", "given '92233"]),
        (in_cell(trials={}), "no-trials", ["cells[0].trials: ", "given {}"]),
        (in_cell(trials={"0": "../home"}), "not-a-trial-id", ["cells[0].trials.0: ", "given '../home'"]),
        (in_cell(trials={"0": "A" * 16}), "not-a-trial-id", ["cells[0].trials.0: ", "given 'AAAAAAAAAAAAAAAA'"]),
        (in_cell(trials={"0": "0" * 17}), "not-a-trial-id", ["cells[0].trials.0: ", "given '00000000000000000'"]),
        (
            in_cell(trials={"0": "0" * 16}),
            "trial-of-other-settings",
            ["cells[0].trials.0: ", FIRST.trials[0], "0" * 16],
        ),
        (
            in_cell(trials={"2": FIRST.trials[1]}),
            "trial-of-other-settings",
            ["cells[0].trials.2: ", trials(SPEC, 2)[2]],
        ),
        (
            in_cell(spec=None, trials={"0": "0" * 16, "1": "0" * 16}),
            "same-trials-twice",
            ["cells[0].trials: ", "seed 1", "0" * 16],
        ),
        (
            lambda manifest: manifest | {"cells": [*manifest["cells"], manifest["cells"][1] | {"scale": "FC32"}]},
            "same-trials-twice",
            ["cells[2].trials: ", "seed 0", SECOND.trials[0]],
        ),
        (
            lambda manifest: manifest | {"cells": [*manifest["cells"], manifest["cells"][1]]},
            "cells-with-same-names",
            ["cells[2]: ", "mtl FC16 r"],
        ),
        (in_cell(spec="x"), "wrong-type", ["cells[0].spec: ", "given 'x'"]),
        (in_cell(spec={}), "missing-key", ["cells[0].spec.method: "]),
        (in_spec(method="supsup"), "wrong-type", ["cells[0].spec.method: ", "given 'supsup'"]),
        (in_spec(method={}), "missing-key", ["cells[0].spec.method.kind: "]),
        (in_spec(benchmark={"kind": "r"}), "missing-key", ["cells[0].spec.benchmark.base: "]),
        (in_spec(scale=None), "text-not-printable", ["cells[0].spec.scale: ", "given None"]),
        (in_spec(seed=0), "settings-with-seed", ["cells[0].spec.seed: "]),
        (in_spec(training={"a": 2**63}), "setting-impossible", ["cells[0].spec.training.a: "]),
        (in_spec(training={"a": "\n"}), "setting-impossible", ["cells[0].spec.training.a: "]),
        (in_spec(training={"\n": 1}), "text-not-printable", ["cells[0].spec.training: ", "given '\\n'"]),
        (
            in_spec(training={"a": nested(99)}),
            "nested-too-deep",
            ["cells[0].spec.training.a" + 15 * ".0"],
        ),
    ],
)
def test_what_is_no_manifest_is_refused(change: Change, code: str, facts: list[str]) -> None:
    """In one line that names the file, the place in it, and what was given."""
    with refused(UserError, code, says=["store/sweeps/small.json: ", "crwn run", *facts]) as caught:
        read(changed(change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "code", "fact"),
    [
        (b"", "json-unreadable", "column 1"),
        (b"\xff\xfe", "json-unreadable", "0xff"),
        ('{"format": 1}'.encode("utf-16"), "json-unreadable", "0xff"),
        (b'{"format": NaN}', "not-finite", "NaN"),
        (b'{"name": "small", "format": 1, "ratio": 1e999, "sha256": ""}', "json-unreadable", "float"),
        (b'{"format": 1, "format": 1}', "repeated-key", "'format'"),
        (b'{"format": 1' + b"0" * 5000 + b"}", "json-unreadable", "4300"),
        (b'{"format": ' + b"[" * 100_000, "json-unreadable", "recursion"),
    ],
)
def test_what_is_no_json_is_refused(content: bytes, code: str, fact: str) -> None:
    """A key that occurs twice too: one of its values would silently win."""
    with refused(UserError, code, says=fact):
        read(content)


@pytest.mark.parametrize("name", ["../small", "", "a b"])
def test_a_name_leads_nowhere_else(name: str) -> None:
    """Files are named after it."""
    with refused(UserError, "manifest-of-another-sweep", says=repr(name)):
        read(replace(MANIFEST, name=name).to_json_bytes(), name)
