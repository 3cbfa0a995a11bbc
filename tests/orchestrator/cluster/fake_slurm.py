"""Slurm's commands as a program for $PATH: jobs in a file, no cluster.

Called as sbatch, squeue, scancel, sacct or sinfo, it answers as Slurm 22.05 did on a real cluster.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "squeue", "scancel", "sacct", "sinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSlurm:
    """A Slurm that a test looks into.

    Attributes:
        folder: for its state.
    """

    folder: Path

    def install(self, python: str) -> Path:
        """Write the commands; returns the folder for $PATH."""
        programs = self.folder / "bin"
        programs.mkdir(parents=True)
        for name in COMMANDS:
            path = programs / name
            path.write_text(f'#!/bin/sh\nexec {python} -S -E {__file__} {self.folder} {name} "$@"\n')
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return programs

    def read(self, name: str, default: Any) -> Any:
        """A part of its state."""
        file = self.folder / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else default

    def write(self, name: str, value: Any) -> None:
        """Change a part of its state: `jobs`, `refusals` by command, the `reason` for which new jobs wait."""
        (self.folder / f"{name}.json").write_text(json.dumps(value))

    @property
    def jobs(self) -> dict[str, dict[str, str]]:
        """By id, by the letters of squeue's formats."""
        return self.read("jobs", {})

    @property
    def asked(self) -> list[list[str]]:
        """The commands that were called."""
        return self.read("asked", [])

    def change(self, job_id: str, **fields: str) -> None:
        """Have a job stand otherwise."""
        jobs = self.jobs
        jobs[job_id].update(fields)
        self.write("jobs", jobs)


def directives(script: str) -> dict[str, str]:
    """A script's sbatch options, read as by sbatch: only those before the first command count."""
    found = {}
    for line in script.splitlines()[1:]:
        if not line.startswith("#"):
            break
        if line.startswith("#SBATCH "):
            (word,) = shlex.split(line.removeprefix("#SBATCH "), posix=True)
            name, _, value = word.partition("=")
            found[name] = value
    return found


def answer(slurm: FakeSlurm, command: str, words: list[str], environment: Mapping[str, str]) -> int:
    """Do what a command does; returns its exit code."""
    slurm.write("asked", [*slurm.asked, [command, *words]])
    slurm.write("environment", {**slurm.read("environment", {}), command: sorted(environment)})
    if refusal := slurm.read("refusals", {}).get(" ".join([command, *words[:1]]) if words else command):
        sys.stderr.write(refusal)
        return 1
    options = dict(re.fullmatch(r"(--[a-z-]+)=?(.*)", word, re.DOTALL).groups() for word in words if word[:2] == "--")
    return globals()[f"_{command}"](slurm, options, words)


def _sbatch(slurm: FakeSlurm, options: dict[str, str], words: list[str]) -> int:
    script = sys.stdin.read() if "--test-only" in options else Path(words[-1]).read_text()
    said = directives(script)
    partition = said.get("--partition", "short")
    if partition != "short":
        sys.stderr.write(f"sbatch: error: invalid partition specified: {partition}\n")
        final = "allocation failure" if "--test-only" in options else "sbatch: error: Batch job submission failed"
        sys.stderr.write(f"{final}: Invalid partition name specified\n")
        return 1
    if "--test-only" in options:
        sys.stderr.write("sbatch: Job 7 to start at 2026-11-30T20:32:32 using 4 processors on nodes node[1-2]\n")
        return 0
    job_id = str(101 + len(slurm.jobs))
    reason = slurm.read("reason", "None")
    job = {"i": job_id, "T": "PENDING", "r": reason, "M": "0:00", "l": said.get("--time", "1:00:00")}
    job |= {"D": said["--nodes"], "Z": said["--chdir"], "j": said["--job-name"], "k": said["--comment"]}
    slurm.write("jobs", {**slurm.jobs, job_id: job | {"script": script}})
    sys.stdout.write(f"{job_id}\n")
    return 0


def _squeue(slurm: FakeSlurm, options: dict[str, str], words: list[str]) -> int:
    wanted = options.get("--jobs")
    jobs = [job for job in slurm.jobs.values() if wanted in (None, job["i"]) and "forgotten" not in job]
    if wanted and not jobs:
        sys.stderr.write("slurm_load_jobs error: Invalid job id specified\n")
        return 1
    for job in jobs:
        if "--states" in options or job["T"] in ("PENDING", "RUNNING", "COMPLETING"):
            line = re.sub(r"%(\w)", lambda found, job=job: job[found[1]], options["--format"])
            sys.stdout.write(f"{line}\n")
    return 0


def _sacct(slurm: FakeSlurm, options: dict[str, str], words: list[str]) -> int:
    accounts = slurm.read("accounts", None)
    if accounts is None:
        sys.stderr.write("Slurm accounting storage is disabled\n")
        return 1
    for line in accounts:
        sys.stdout.write(options["--delimiter"].join(line) + "\n")
    return 0


def _scancel(slurm: FakeSlurm, options: dict[str, str], words: list[str]) -> int:
    slurm.change(words[-1], T="CANCELLED")
    return 0


def _sinfo(slurm: FakeSlurm, options: dict[str, str], words: list[str]) -> int:
    sys.stdout.write("short\n")
    return 0


if __name__ == "__main__":
    sys.exit(answer(FakeSlurm(folder=Path(sys.argv[1])), sys.argv[2], sys.argv[3:], os.environ))
