"""Papers as data: one YAML file per paper, with its tables, figures and claims, read strictly into typed values.

paper.py       what a paper says, as values
grammar.py     the structure of its file
reading.py     reads the file and reports all its faults at once
*.yaml         the papers; a file's name is the paper's name

To add a paper, add a file here and its sweeps in `sweeps/<name>/`. The code for tables and verdicts is in
`orchestrator/report/` and knows no particular paper.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from orchestrator.errors import UserError, nearest

ENDING = ".yaml"


def names() -> list[str]:
    """Names of all papers, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(ENDING) for file in files if file.name.endswith(ENDING))


def file_of(name: str) -> Path:
    """The file of a paper.

    Raises:
        UserError: there is no paper of this name.
    """
    known = names()
    if name not in known:
        raise UserError("unknown-name", f"--paper: {nearest(name, known)}")
    return Path(str(resources.files(__name__).joinpath(name + ENDING)))
