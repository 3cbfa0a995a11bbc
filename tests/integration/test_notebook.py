"""The Python interface in a notebook: a Jupyter kernel runs cells, and is stopped in the middle of one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

import crwn
from orchestrator.store.store import Store
from tests.said import to_run

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"

LONG = """\
import crwn
trial = crwn.TrialSpec.from_json('''{
    "method": {"kind": "neuromodnet"},
    "benchmark": {"kind": "rotated", "base": "digits", "num_tasks": 2},
    "scale": "FC64",
    "seed": 0,
    "training": {"learning_rate": 0.01, "updates_per_task": 3000}
}''')
crwn.run(trial, store="store").trials["status"].tolist()
"""

pytestmark = [
    pytest.mark.slow(reason="a kernel of Jupyter's imports torch and learns"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., NotebookClient]:
    """Creates clients that run a notebook's cells, in an empty folder with separate settings."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "work"
    folder.mkdir()

    def make(notebook: NotebookNode, **more: Any) -> NotebookClient:
        return NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}, **more)

    return make


def outputs(cell: NotebookNode, kind: str) -> list[str]:
    """What a cell shows, of one media type."""
    shown = [output["data"].get(kind) for output in cell["outputs"] if "data" in output]
    if kind == "text/plain":
        shown += [output["text"] for output in cell["outputs"] if output["output_type"] == "stream"]
    return [text for text in shown if text is not None]


def test_the_notebook_runs_from_a_run_to_a_figure(client: Callable[..., NotebookClient]) -> None:
    """It is stored without outputs; every cell runs, figures are drawn, and progress is shown."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    client(notebook).execute()
    figures = [cell for cell in code if outputs(cell, "image/png")]
    assert len(figures) == 4
    printed = "".join(outputs(code[1], "text/plain"))
    assert f"{to_run('five', 6)}; executor inline" in printed
    assert "6/6 trials done" in printed
    assert "task 1/5" not in printed  # which is shown in one output that changes
    assert "accuracy" in outputs(code[2], "text/html")[0]


def test_progress_changes_in_place_and_is_empty_in_the_end(client: Callable[..., NotebookClient]) -> None:
    """Bars for the running trials while they run; the notebook keeps only the lines."""
    shown: list[str] = []

    class Watching(NotebookClient):
        def process_message(self, message: Any, cell: NotebookNode, cell_index: int) -> NotebookNode | None:
            if message["msg_type"] in ("display_data", "update_display_data"):
                shown.append(message["content"]["data"].get("text/html", ""))
            return super().process_message(message, cell, cell_index)

    notebook = new_notebook(cells=[new_code_cell(LONG)])
    made = client(notebook)
    Watching(notebook, timeout=300, resources=made.resources).execute()
    assert any('<progress value="' in text and "neuromodnet FC64, r-digits, seed 0" in text for text in shown)
    assert shown[-1] == ""
    assert outputs(notebook.cells[0], "text/html") == []
    assert notebook.cells[0]["outputs"][-1]["data"]["text/plain"] == "['done']"


def test_a_cell_that_is_stopped_goes_on_at_the_next_run(client: Callable[..., NotebookClient], tmp_path: Path) -> None:
    """It raises KeyboardInterrupt; the kernel lives, and the same cell resumes the trial and ends it."""
    longer = LONG.replace("3000", "6000")  # some seconds after its first resume point on a fast machine
    notebook = new_notebook(cells=[new_code_cell(longer), new_code_cell(longer)])
    running = client(notebook, allow_errors=True, interrupt_on_timeout=False)
    store = tmp_path / "work" / "store"

    async def stopped_when_begun() -> None:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            if (store / "store.json").exists() and list(store.glob("trials/*/resume.safetensors")):
                await running.km.interrupt_kernel()
                return

    async def work() -> None:
        async with running.async_setup_kernel():
            stopping = asyncio.ensure_future(stopped_when_begun())
            await running.async_execute_cell(notebook.cells[0], 0)
            await stopping
            assert crwn.open(store).trials["status"].tolist() == ["interrupted"]
            await running.async_execute_cell(notebook.cells[1], 1)

    asyncio.run(work())
    first, second = (cell["outputs"][-1] for cell in notebook.cells)
    assert first["ename"] == "KeyboardInterrupt"
    assert second["data"]["text/plain"] == "['done']"
    (trial,) = crwn.open(store).trials["id"]
    attempts = Store(store).all_attempts(trial)
    assert len(attempts) == 2
    assert attempts[1].began_at is not None
    assert (attempts[1].began_at.tasks_learned, attempts[1].began_at.step) > (0, 0)
