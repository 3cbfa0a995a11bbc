"""Papers as data: a file each with the tables, figures and claims of one, read strictly and typed.

paper.py       what a paper says, as values
grammar.py     the parts of its file
reading.py     its file read, with every fault at once
*.yaml         the papers; the name of a file is the paper's

A paper is one more file here, and its sweeps in `sweeps/<name>/`. What makes tables and verdicts of one is in
`orchestrator/report/` and knows none of them.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from orchestrator.errors import UserError, nearest

ENDING = ".yaml"


def names() -> list[str]:
    """The papers that are known."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(ENDING) for file in files if file.name.endswith(ENDING))


def file_of(name: str) -> Path:
    """A paper's file.

    Raises:
        UserError: no paper is called so.
    """
    known = names()
    if name not in known:
        raise UserError(f"--paper takes a paper's name, such as --paper {known[0]}: {nearest(name, known)}")
    return Path(str(resources.files(__name__).joinpath(name + ENDING)))
