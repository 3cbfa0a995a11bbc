"""A sweep's manifest in the store: the trials that the sweep requests, with its labels. Pure.

Manifests may be untrusted or damaged; they are validated here, and nowhere else. Fields added later are absent from
older manifests; their defaults mean what those manifests meant.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from crwn.faults import InvalidError, codes_of
from crwn.spec import TRIAL_ID, trial_id_of
from crwn.strict_json import parse
from orchestrator.errors import UserError
from orchestrator.store.json_fields import (
    CANONICAL,
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_TEXT,
    Fields,
    check_values,
    sealed_bytes,
    without_none,
)
from orchestrator.store.recorded_spec import RecordedSpec

MANIFEST_FORMAT = 1
"""A reader refuses a newer format; adding fields does not change the format."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""The form of a sweep's name, which is also a file name and so must not contain a path."""

_TOP_FIELDS = ("format", "name", "reference", "cells")
_CELL_FIELDS = (
    *("method", "variant", "scale", "benchmark", "trials"),
    *("continual", "validation", "params_per_task", "ratio", "spec", "base"),
)
"""The fields that manifests without a checksum may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestCell:
    """One cell of a sweep's table: trials that differ only in their seed, under the sweep's own names.

    Attributes:
        method, variant, scale, benchmark: the sweep's names for it; the variant is empty if an entry has none.
        trials: trial ids by seed.
        continual: whether tasks are learned one after another, rather than jointly.
        validation: number of training images held out for testing; 0: test on the real test images.
        params_per_task: parameters per task in the paper's convention; None in an older manifest.
        ratio: params_per_task relative to the sweep's reference on this benchmark; None without a reference.
        spec: the settings that its trials share; None in an older manifest.
        base: the variant with which an ablation is compared; None outside ablations.
        examples_kept: capacity of the replay buffer, in training images.
    """

    method: str
    variant: str
    scale: str
    benchmark: str
    trials: Mapping[int, str]
    continual: bool = True
    validation: int = 0
    params_per_task: float | None = None
    ratio: float | None = None
    spec: RecordedSpec | None = None
    base: str | None = None
    examples_kept: int = 0

    @property
    def method_kind(self) -> str:
        """The method's name in the registry; the sweep's own name if an older manifest has no spec."""
        return self.method if self.spec is None else self.spec.method_kind

    @property
    def names(self) -> dict[str, str]:
        """The cell's names, by table column."""
        return {"method": self.method, "variant": self.variant, "scale": self.scale, "benchmark": self.benchmark}

    @property
    def row_name(self) -> str:
        """The name of its table row, such as `neuromodnet local FC256`."""
        return " ".join(filter(None, (self.method, self.variant, self.scale)))

    @property
    def name(self) -> str:
        """Its row and its benchmark."""
        return f"{self.row_name} {self.benchmark}"

    @property
    def key(self) -> str:
        """A text that identifies the cell's names unambiguously, whatever spaces they contain."""
        return json.dumps([*self.names.values()])

    @classmethod
    def _read(cls, value: Any, place: str, *, has_sum: bool) -> ManifestCell:
        fields = Fields(value, place)
        if not has_sum:
            fields.refuse_others(_CELL_FIELDS)
        spec = RecordedSpec.read(fields, "spec")
        trials = _trials(fields.take("trials"), f"{place}.trials")
        if spec is not None:
            _check_settings(spec.values, trials, place)
        return cls(
            method=fields.text("method"),
            variant=fields.text("variant", may_be_empty=True),
            scale=fields.text("scale"),
            benchmark=fields.text("benchmark"),
            trials=trials,
            continual=fields.flag("continual", default=True),
            validation=fields.count("validation", default=0),
            params_per_task=fields.number("params_per_task"),
            ratio=fields.number("ratio"),
            spec=spec,
            base=fields.optional_text("base"),
            examples_kept=fields.count("examples_kept", default=0),
        )

    def _content(self) -> dict[str, Any]:
        spec = None if self.spec is None else self.spec.values
        later = {"params_per_task": self.params_per_task, "spec": spec, "base": self.base}
        later |= {"examples_kept": self.examples_kept or None}
        return {
            **self.names,
            "continual": self.continual,
            "validation": self.validation,
            "ratio": self.ratio,
            "trials": {str(seed): trial_id for seed, trial_id in self.trials.items()},
            **{name: value for name, value in later.items() if value is not None},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestPlugin:
    """Code from outside of crwn that a sweep's trials use.

    Attributes:
        name: a file's name, or an installed distribution's.
        version: the SHA-256 of the file's bytes, or the distribution's version.
        code: the fingerprint of what it does, see `crwn.code`; None if its source is not available.
    """

    name: str
    version: str
    code: str | None = None

    @classmethod
    def _read(cls, fields: Fields) -> ManifestPlugin:
        return cls(
            name=fields.text("name"),
            version=fields.text("version", may_be_empty=True),
            code=fields.optional_text("code"),
        )

    def _content(self) -> dict[str, Any]:
        return without_none(name=self.name, version=self.version, code=self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The trials that a sweep requests.

    Attributes:
        name: the sweep's name, which also names its file.
        cells: the cells, in the sweep's order.
        reference: the method with whose params/task the others are compared, or None.
        changes: the command line's overrides, as typed.
        plugins: the code from outside of crwn that the trials use, as it was when the sweep was last run.
        has_sum: whether the file has a checksum; False if an older crwn wrote it.
    """

    name: str
    cells: tuple[ManifestCell, ...]
    reference: str | None = None
    changes: tuple[str, ...] = ()
    plugins: tuple[ManifestPlugin, ...] = ()
    has_sum: bool = field(default=True, compare=False)

    @property
    def trial_ids(self) -> list[str]:
        """The ids of all trials, in the sweep's order."""
        return [trial_id for _, _, trial_id in self.trials()]

    def trials(self) -> Iterator[tuple[ManifestCell, int, str]]:
        """Every trial with its cell and its seed, in the sweep's order."""
        for cell in self.cells:
            for seed, trial_id in cell.trials.items():
                yield cell, seed, trial_id

    @classmethod
    def from_json(cls, content: bytes, *, name: str, place: str) -> Manifest:
        """Read a manifest from its file.

        Args:
            content: the file's bytes.
            name: the sweep's name, from the file's name.
            place: the file's full name, for errors.

        Raises:
            UserError: it is damaged, belongs to another sweep, or is newer than this reader.
        """
        try:
            fields = Fields(parse(content))
            newer = fields.count("format") > MANIFEST_FORMAT
            found = None if newer else cls._read(fields, name)
        except (ValueError, RecursionError) as error:
            raise UserError(
                codes_of(error, "json-unreadable"),
                f"{place}: expected a sweep's manifest: {error}. Remove it; crwn run on the sweep rewrites it.",
            ) from error
        if found is None:
            raise UserError(
                "newer-format", f"{place}: expected format {MANIFEST_FORMAT} or older, given a newer one; upgrade crwn."
            )
        return found

    @classmethod
    def _read(cls, fields: Fields, name: str) -> Manifest:
        has_sum = fields.check_sum(_TOP_FIELDS)
        given = fields.take("name")
        if given != name or not NAME.fullmatch(name):
            raise InvalidError("manifest-of-another-sweep", f"it belongs to another sweep, {reprlib.repr(given)}")
        cells = fields.take("cells")
        if not isinstance(cells, list) or not cells:
            raise InvalidError("no-cells", f"cells: expected a list of cells, given {reprlib.repr(cells)}")
        found = cls(
            name=name,
            cells=tuple(
                ManifestCell._read(cell, f"cells[{index}]", has_sum=has_sum) for index, cell in enumerate(cells)
            ),
            reference=fields.optional_text("reference"),
            changes=fields.texts("changes"),
            plugins=tuple(map(ManifestPlugin._read, fields.parts("plugins"))),
            has_sum=has_sum,
        )
        found._check_names()
        return found

    def _check_names(self) -> None:
        """Check that cells have distinct names and trials, and that references name existing cells.

        Raises:
            ValueError: they do not.
        """
        rows = {(cell.method, cell.variant) for cell in self.cells}
        if self.reference is not None and self.reference not in {method for method, _ in rows}:
            raise InvalidError(
                "reference-unknown", f"reference: expected the method of a cell, given {reprlib.repr(self.reference)}"
            )
        named: set[tuple[str, ...]] = set()
        asked: set[str] = set()
        for index, cell in enumerate(self.cells):
            names = tuple(cell.names.values())
            if names in named:
                raise InvalidError(
                    "cells-with-same-names",
                    f"cells[{index}]: another cell has the same names, {' '.join(filter(None, names))}",
                )
            named.add(names)
            if cell.base is not None and (cell.method, cell.base) not in rows:
                raise InvalidError(
                    "base-unknown",
                    f"cells[{index}].base: expected another cell's variant, given {reprlib.repr(cell.base)}",
                )
            for seed, trial_id in cell.trials.items():
                if trial_id in asked:
                    raise InvalidError(
                        "same-trials-twice",
                        f"cells[{index}].trials: the trial of seed {seed}, {trial_id}, is requested twice",
                    )
                asked.add(trial_id)

    def content(self) -> dict[str, Any]:
        """The manifest as JSON values, without its checksum."""
        cells = [cell._content() for cell in self.cells]
        content = {"format": MANIFEST_FORMAT, "name": self.name, "reference": self.reference, "cells": cells}
        if self.changes:
            content["changes"] = list(self.changes)
        if self.plugins:
            content["plugins"] = [each._content() for each in self.plugins]
        return content

    def to_json_bytes(self) -> bytes:
        """The content of the manifest's file; equal manifests give equal bytes."""
        return sealed_bytes(self.content())


_SEED = re.compile("0|[1-9][0-9]{0,18}")


def _trials(value: Any, place: str) -> dict[int, str]:
    """The ids of a cell's trials by seed; JSON keys are the seeds as text."""
    if not isinstance(value, dict) or not value:
        raise InvalidError("no-trials", f"{place}: expected seeds with trials, given {reprlib.repr(value)}")
    for seed, trial_id in value.items():
        if not _SEED.fullmatch(seed) or int(seed) > MAX_INTEGER:
            raise InvalidError(
                "seed-not-whole", f"{place}: expected a whole number as a seed, given {reprlib.repr(seed)}"
            )
        if not isinstance(trial_id, str) or not TRIAL_ID.fullmatch(trial_id):
            raise InvalidError(
                "not-a-trial-id", f"{place}.{seed}: expected a trial's id, given {reprlib.repr(trial_id)}"
            )
    return {int(seed): trial_id for seed, trial_id in value.items()}


def _check_settings(spec: Mapping[str, Any], trials: Mapping[int, str], place: str) -> None:
    """Check that settings are valid, and that each trial's id is the hash of the canonical JSON of settings and seed.

    Raises:
        ValueError: they are not.
    """
    # Encode JSON once for all seeds, with a placeholder number that no settings may contain.
    before, *others = CANONICAL.encode({**spec, "seed": _NO_NUMBER}).split(f'"seed":{_NO_NUMBER}')
    if len(others) != 1 or not _is_plain(before + others[0]):
        check_values(spec, f"{place}.spec")
    for seed, trial_id in trials.items():
        expected = trial_id_of(f'{before}"seed":{seed}{others[0]}')
        if trial_id != expected:
            raise InvalidError(
                "trial-of-other-settings",
                f"{place}.trials.{seed}: expected {expected}, the trial of the cell's spec, given {trial_id}",
            )


_NO_NUMBER = 10 * MAX_INTEGER
_LONG_NUMBER = re.compile("[0-9]{18}")


def _is_plain(text: str) -> bool:
    """Whether JSON certainly holds nothing that `check_values` would refuse; a quick test that nearly all pass."""
    return (
        len(text) <= MAX_TEXT
        and text.isprintable()
        and "\\" not in text  # other unprintable characters are escaped with one
        and text.count("{") + text.count("[") <= MAX_DEPTH
        and not _LONG_NUMBER.search(text)
    )
