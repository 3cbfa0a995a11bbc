"""Commands that write plug-in templates: new method, new network."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.errors import UserError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")

_SWEEP = """\
# crwn run {name}.yaml --plugin {name}.py
name: {name}
plugins: [{name}.py]
seeds: [0, 1, 2]
benchmarks: [seq-digits]
methods:
"""

_WITH_METHOD = """\
  {name}: {{scales: [FC100]}}
  finetune: {{scales: [FC100]}}
  joint: {{scales: [FC100]}}
"""

_WITH_NETWORK = """\
  finetune: {{network: {name}}}
  er: {{scales: [{name}, FC100]}}
  joint: {{network: {name}}}
"""


def method(
    name: Annotated[str, typer.Argument(help="its name in sweeps, such as my_method", metavar="NAME")],
) -> None:
    """Write a template for a new method. Creates NAME.py, and NAME.yaml, a sweep that compares it with baselines."""
    from crwn.methods import METHODS  # noqa: PLC0415

    _check_name(name, is_taken=name in METHODS.built_in)
    _write(name, "template.py", _WITH_METHOD, "check_method")


def network(
    name: Annotated[str, typer.Argument(help="its name in sweeps, such as my_network", metavar="NAME")],
) -> None:
    """Write a template for a new network. Creates NAME.py, and NAME.yaml, a sweep of methods that train it."""
    from crwn.methods.networks import is_built_in  # noqa: PLC0415

    _check_name(name, is_taken=is_built_in(name))
    _write(name, "template_network.py", _WITH_NETWORK, "check_network")


def _check_name(name: str, *, is_taken: bool) -> None:
    if not _NAME.fullmatch(name):
        raise UserError(
            "name-unfit",
            f"NAME: expected at most 50 lower-case letters, digits and '_', beginning with a letter; given {name!r}",
        )
    if is_taken:
        raise UserError(
            "name-taken", f"NAME: expected an unused name, given {name!r}, which is built in; choose another"
        )


def _write(name: str, template: str, methods: str, check: str) -> None:
    """Write a template under a name, and a sweep with these methods; print how to run and check them."""
    title = "".join(word.capitalize() for word in name.split("_"))
    text = (Path(__file__).parents[1] / template).read_text(encoding="utf-8")
    text = re.sub(r"\bmine\b", name, re.sub(r"\bMine", title, text))
    files = {Path(f"{name}.py"): text, Path(f"{name}.yaml"): (_SWEEP + methods).format(name=name)}
    for file in files:
        if file.exists() or file.is_symlink():
            raise UserError(
                "file-exists", f"{file}: expected no such file, but it exists; choose another name or move it"
            )
    for file, content in files.items():
        with file.open("x", encoding="utf-8") as opened:
            opened.write(content)
        typer.echo(f"written   {file}")
    typer.echo(f"run       {shlex.join(['crwn', 'run', f'{name}.yaml', '--plugin', f'{name}.py'])}")
    checked = shlex.join(["python", "-c", f"from crwn.testing import {check}; {check}('{name}.py')"])
    typer.echo(f"check     {checked}")
