"""Measure how fast a browser loads the page over 500 trials.

    .venv/bin/python -m perf.page [TRIALS] [TASKS]

Needs headless Chromium. Writes a store of synthetic trials and its page to a temporary folder, opens the page
repeatedly, and asks the browser when it was fully loaded and laid out. Writes the table in README.md between its marks.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from orchestrator.report.page import write_report
from orchestrator.store.store import Store
from perf.aggregation import write

TRIALS, TASKS, ROUNDS = 500, 100, 9
OPTIONS = ("--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--no-sandbox")
PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const out = document.createElement("pre");
  out.id = "found";
  document.body.offsetHeight;  // has the browser lay out what is there
  out.textContent = performance.now();
  document.body.append(out);
}));
</script></body>"""


def main() -> None:
    """Write, open, print."""
    given = [int(text) for text in sys.argv[1:]]
    num_trials, num_tasks = [*given, *(TRIALS, TASKS)[len(given) :]]
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("expected Chromium on the PATH, found none; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        store.create()
        write(store, range(num_trials), num_tasks)
        write_report([store], store.report)
        text = (store.root / "report" / "report.html").read_text()
        file = Path(folder) / "probed.html"
        file.write_text(text.replace("</body>", PROBE))
        rounds = [opened([browser, *OPTIONS, f"--user-data-dir={folder}/browser"], file) for _ in range(ROUNDS)]
    from perf.engine import machine, replace_between

    seconds = statistics.median(rounds) / 1000
    replace_between(
        "page.py",
        [
            (
                f"{machine()}. {num_trials} trials of {num_tasks} tasks; the page has {len(text) / 2**20:.1f} MiB. "
                f"Median of {ROUNDS}: fully loaded after {seconds:.2f} s."
            ),
        ],
    )


def opened(browser: list[str], file: Path) -> float:
    """Milliseconds from the navigation until everything is loaded and laid out."""
    command = [*browser, "--virtual-time-budget=60000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout)
    return float(found)


if __name__ == "__main__":
    main()
