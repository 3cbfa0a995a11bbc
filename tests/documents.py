"""The tables of methods and benchmarks in the documents, generated from the specs and the methods' docstrings:

    .venv/bin/python -m tests.documents

rewrites them. A table is between two comments that name it. The site (`make docs`) also has a page for each
method, generated here.
"""  # noqa: D415 (the first line ends in a command)

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from crwn.benchmarks import PRESETS
from crwn.methods import METHODS
from crwn.methods.protocol import Method, ScaleError
from crwn.spec import SCENARIOS, BenchmarkSpec, Blueprint, MethodSpec, TrainingSpec
from tests.crwn.methods.building import plain_surroundings
from tests.methods import CASES
from tests.methods.case import Case

ROOT = Path(__file__).resolve().parents[1]

SHARED: Mapping[str, str] = MappingProxyType(
    {"never": "frozen", "first segment": "learned with the first task", "always": "learned with every task"}
)
AT_ONCE: Mapping[str, str] = MappingProxyType({"one": "one", "any": "any number", "all": "all"})
OPTIMIZERS: Mapping[str, str] = MappingProxyType({"rmsprop": "RMSProp", "adam": "Adam", "sgd": "SGD"})


def methods() -> Iterator[list[str]]:
    """One row per method and mode: what it is, its scenarios, shared weights, costs and source."""
    yield [
        "",
        "what it is",
        "scenarios",
        "shared weights",
        "tasks at once",
        "params/task",
        "memory",
        "source",
    ]
    for case in {repr(case.method): case for case in CASES.values()}.values():
        first, *others = _shapes(case)
        blueprints = [case.method.blueprint(case.table_scale, spec.problem(), 0) for spec in (first, *others)]
        blueprint = blueprints[0]
        counts = dict.fromkeys(f"{one.params_per_task:,.0f}" for one in blueprints)
        yield [
            _name(case.method),
            _first_sentence(case.method) if not _settings(case.method) else "the same",
            ", ".join(name for name, tells in SCENARIOS.items() if blueprint.needs <= tells),
            SHARED[blueprint.moves_shared] if blueprint.backbone.arrays or blueprint.stored_shared else "none",
            _at_once(blueprint),
            " / ".join(counts),
            _kept(blueprint),
            _source(case.method) if not _settings(case.method) else "the same",
        ]


def settings() -> Iterator[list[str]]:
    """One row per method: its scales, its settings with their defaults, and its training."""
    yield ["", "scales", "settings and their defaults", "training"]
    for name in METHODS:
        case = CASES[name]
        hints = get_type_hints(type(case.method))
        fields = [field for field in dataclasses.fields(case.method) if field.init]
        told = [_setting(field.name, getattr(case.method, field.name), hints[field.name]) for field in fields]
        yield [f"`{name}`", _scales(case), ", ".join(told), _training(case)]


def presets() -> Iterator[list[str]]:
    """One row per preset: its scenario and its sizes."""
    yield ["", "kind", "scenario", "image", "tests", "segments", "outputs", "training images"]
    for name, spec in PRESETS.items():
        problem = spec.problem()
        yield [
            f"`{name}`",
            f"`{spec.kind}`",
            problem.scenario,
            " x ".join(map(str, problem.input_shape)),
            str(problem.num_tasks),
            str(problem.num_segments),
            str(problem.num_classes),
            f"{problem.num_train:,}",
        ]


TABLES: Mapping[str, tuple[str, Callable[[], Iterator[list[str]]]]] = MappingProxyType(
    {
        "methods": ("docs/methods.md", methods),
        "settings": ("sweeps/README.md", settings),
        "presets": ("docs/benchmarks.md", presets),
    }
)
"""Each table's document, and the function that generates its rows."""


def table(name: str) -> str:
    """A table as it should be in its document."""
    head, *rows = TABLES[name][1]()
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(line.replace("|  |", "| |") for line in lines)


def parts(name: str) -> tuple[str, str, str]:
    """A table's document: the text before the table, the table, and the text after it."""
    text = (ROOT / TABLES[name][0]).read_text(encoding="utf-8")
    found = re.fullmatch(rf"(.*<!-- {name}: [^\n]* -->\n)(.*?)(<!-- {name} end -->.*)", text, flags=re.DOTALL)
    assert found, f"{TABLES[name][0]}: expected comments around the table {name!r}"
    return found[1], found[2], found[3]


def main() -> None:
    """Write all tables."""
    for name, (document, _) in TABLES.items():
        before, _, after = parts(name)
        (ROOT / document).write_text(f"{before}{table(name)}\n{after}", encoding="utf-8")


def page(name: str) -> str:
    """A method's page: its docstring, its settings, its row of the methods table, a sweep to start from."""
    case = CASES[name]
    names, *rows = methods()
    (facts,) = [row for row in rows if row[0] == f"`{name}`"]
    sweep = f"""```yaml
seeds: [0, 1, 2]
benchmarks: [{_embedded(case)}]
methods:
  {name}: {{scales: [{case.table_scale}]}}
```"""
    return "\n\n".join(
        [
            f"# `{name}`",
            inspect.cleandoc(_head(case.method)),
            "## Settings",
            _markdown(["setting", "default", "meaning"], _explained(case.method)),
            "Scales: " + _scales(case) + ". Training: " + _training(case) + ".",
            "## At a glance",
            _markdown(["", ""], [list(pair) for pair in zip(names, facts, strict=True)][2:-1]),
            "[Methods](../methods.md) explains the rows and compares all methods.",
            "## A sweep to start from",
            sweep,
            f"The code: `crwn/methods/{name}.py`.",
            "",
        ]
    )


def write_pages(folder: Path) -> None:
    """Write every method's page to a folder, as files named after the methods."""
    folder.mkdir(exist_ok=True)
    for name in METHODS:
        (folder / f"{name}.md").write_text(page(name), encoding="utf-8")


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def _explained(method: MethodSpec) -> list[list[str]]:
    """One row per setting: its default and other choices, and its description in the spec's docstring."""
    hints = get_type_hints(type(method))
    said = dict(
        re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", inspect.cleandoc(type(method).__doc__ or ""), re.MULTILINE)
    )
    return [
        [
            f"`{field.name}`",
            _default(getattr(method, field.name), hints[field.name]),
            re.sub(r"\s+", " ", said[field.name]),
        ]
        for field in dataclasses.fields(method)
        if field.init
    ]


def _default(value: Any, hint: Any) -> str:
    """A setting's default, and its other values if there are few."""
    others = [choice for choice in get_args(hint) if choice != value] if get_origin(hint) is Literal else []
    return f"`{_yaml(value)}`" + (f" (or {', '.join(f'`{choice}`' for choice in others)})" if others else "")


def _embedded(case: Case) -> str:
    """A preset on embedded digits that the method learns."""
    for name in ("r-digits", "seq-digits"):
        with contextlib.suppress(ValueError):
            case.trial(benchmark=PRESETS[name])
            return name
    raise AssertionError(f"{case.method.kind}: expected to learn one of the presets on digits")


def _shapes(case: Case) -> list[BenchmarkSpec]:
    """The benchmarks of the table that the method supports; else the case's own."""
    found = []
    for benchmark in (PRESETS["r-mnist"], PRESETS["p-mnist"]):
        try:
            case.trial(benchmark=benchmark)
        except ValueError:
            continue
        found.append(benchmark)
    return found or [PRESETS["seq-mnist"]]


def _settings(method: MethodSpec) -> dict[str, Any]:
    """Those that differ from the defaults."""
    default = type(method)()
    changed = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    return {name: value for name, value in changed.items() if value != getattr(default, name)}


def _name(method: MethodSpec) -> str:
    return ", ".join([f"`{method.kind}`", *(f"`{key}: {_yaml(value)}`" for key, value in _settings(method).items())])


def _head(method: MethodSpec) -> str:
    """The docstring of the method's file."""
    return sys.modules[type(method).__module__].__doc__ or ""


def _first_sentence(method: MethodSpec) -> str:
    """The first paragraph of the docstring, without the method's name before its colon."""
    return _head(method).partition("\n\n")[0].replace("\n", " ").strip().rstrip(".")


def _source(method: MethodSpec) -> str:
    """The docstring's source, without details."""
    head = _head(method).replace("\n", " ").strip()
    found = re.search(r"Source: (.*?)(;|: |(?<! al)\. |\.?$)", head)
    assert found, f"crwn/methods/{method.kind}.py: expected a line `Source: ...` in its head"
    return found[1] + ")" * (found[1].count("(") - found[1].count(")"))


def _at_once(blueprint: Blueprint) -> str:
    alone = blueprint.moves_shared == "first segment" and blueprint.grouping != "one"
    return ("first alone, then " if alone else "") + AT_ONCE[blueprint.grouping]


def _kept(blueprint: Blueprint) -> str:
    kept = [f"{blueprint.examples_kept:,} images"] if blueprint.examples_kept else []
    kept += [f"{blueprint.stored_memory:,} numbers"] if blueprint.stored_memory else []
    return ", ".join(kept) or "nothing"


def _scales(case: Case) -> str:
    """The scales named by the error for an unknown scale."""
    try:
        case.method.blueprint("", _shapes(case)[0].problem(), 0)
    except ScaleError as error:
        (examples,) = re.findall(r"such as (.*)[,;] given", str(error))
        families = re.sub(r", or, for (a )?([^,]+), ", r"; \2: ", examples.replace("ResNet-18", "ResNet"))
        families = families.replace(", or a network", "; a network")
        return re.sub(r"\b((FC|nf)?\d+d?|dynamos(-nf\d+)?)\b", lambda scale: f"`{scale[0]}`", families)
    raise AssertionError(f"{case.method.kind}: expected no scale called ''")


def _setting(name: str, value: Any, hint: Any) -> str:
    if get_origin(hint) is Literal:
        others = [choice for choice in get_args(hint) if choice != value]
        return f"`{name}` {value} (or {', '.join(others)})"
    return f"`{name}` {_yaml(value)}"


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _training(case: Case) -> str:
    """The optimiser, its rate (and the first segment's if different), length and batch size of training."""
    training: TrainingSpec = case.method.training(case.table_scale)
    first = _built(case).rate(0, training.learning_rate)
    rate = f"{OPTIMIZERS[training.optimizer]} {training.learning_rate:g}"
    rate += f", first task {first:g}" if first != training.learning_rate else ""
    epochs = training.epochs_per_task
    length = f"{epochs} epoch{'s' if epochs > 1 else ''}" if epochs else f"{training.updates_per_task} updates"
    return f"{rate}; {length} of {training.batch_size}"


def _built(case: Case) -> Method:
    """Over weights of zero."""
    problem = _shapes(case)[0].problem()
    arrays = case.method.blueprint(case.table_scale, problem, 0).backbone.arrays
    zeros = {array.name: torch.zeros(array.shape) for array in arrays}
    method: Method = METHODS[case.method.kind].build(
        case.method, plain_surroundings(case.table_scale, problem, backbone=zeros)
    )
    return method


if __name__ == "__main__":
    main()
