"""The script of a Slurm job: Ray on every node, `crwn run` on the first, and a clean end before the time limit.

It does not use `ray symmetric-run`, which refuses to start on a node where anyone's Ray runs, ends with `ray stop`,
which ends this user's other jobs on the node, and does not forward signals.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crwn.faults import Fault

LEAD_SECONDS = 120
"""Seconds before the time limit at which the script is signalled."""

MIN_SECONDS = 300
"""The shortest time limit: Slurm may signal a minute early, and Ray takes a minute to start."""

TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)
"""Slurm's forms of a time: minutes, minutes:seconds, hours:minutes:seconds, days-hours and so on."""

OPTION = re.compile(r"--[a-z][a-z-]*[a-z](=.*)?", re.ASCII)

OWN = {
    "--account": "--account",
    "--array": "one job per sweep",
    "--chdir": "the folder next to the store",
    "--comment": "what crwn finds the job by",
    "--cpus-per-task": "--cpus-per-node",
    "--error": "the log next to the store",
    "--gpus-per-node": "--gpus-per-node",
    "--job-name": "what crwn finds the job by",
    "--no-requeue": "the job continues after its time limit",
    "--nodes": "--nodes",
    "--ntasks": "one process of Ray per node",
    "--ntasks-per-node": "one process of Ray per node",
    "--open-mode": "the log is kept",
    "--output": "the log next to the store",
    "--partition": "--partition",
    "--requeue": "the job continues after its time limit",
    "--signal": "how the job is told of its time limit",
    "--time": "--time",
    "--wrap": "the job's own script",
}
"""sbatch options that crwn sets itself, with the option that controls them or their purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The resources that a job requests from Slurm.

    Attributes:
        nodes: number of nodes.
        gpus: per node; None leaves it to Slurm.
        cpus: per node; None leaves it to Slurm.
        time: the time limit, in one of Slurm's formats; None: the partition's.
        partition: one name, or several separated by commas; None: Slurm's default.
        account: the account to charge; None: Slurm's default.
        more: extra sbatch options, such as "--qos=high".
    """

    nodes: int = 1
    gpus: int | None = None
    cpus: int | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    more: tuple[str, ...] = ()

    def options(self) -> dict[str, str]:
        """The options of the command line that say this, with their values, those of `more` aside."""
        given = {
            "--nodes": self.nodes,
            "--gpus-per-node": self.gpus,
            "--cpus-per-node": self.cpus,
            "--time": self.time,
            "--partition": self.partition,
            "--account": self.account,
        }
        return {name: str(value) for name, value in given.items() if value is not None}

    def words(self) -> Iterator[str]:
        """The same as words of a command line."""
        for name, value in (*self.options().items(), *(("--sbatch", option) for option in self.more)):
            yield from (name, value)

    def faults(self) -> Iterator[Fault]:
        """Faults of the request, one sentence each."""
        for name, value, least in (
            ("--nodes", self.nodes, 1),
            ("--gpus-per-node", self.gpus, 0),
            ("--cpus-per-node", self.cpus, 1),
        ):
            if value is not None and value < least:
                yield Fault("too-small", f"{name}: expected at least {least}, given {value}")
        for name, word in (("--partition", self.partition), ("--account", self.account)):
            if word is not None and not (word and word.isprintable()):
                yield Fault("name-not-printable", f"{name}: expected a name of printable characters, given {word!r}")
        if self.time is not None:
            yield from self._faults_of_time(self.time)
        for option in self.more:
            name = option.partition("=")[0]
            if not (OPTION.fullmatch(option) and option.isprintable()):
                yield Fault(
                    "not-an-option",
                    f"--sbatch: expected an option of sbatch in one word, such as --qos=high, given {option!r}",
                )
            elif owner := next((OWN[own] for own in OWN if own == name or own.startswith(f"{name}-")), None):
                yield Fault(
                    "option-is-crwns",
                    f"--sbatch: expected an option that crwn does not set itself, given {name} ({owner})",
                )

    def _faults_of_time(self, time: str) -> Iterator[Fault]:
        seconds = seconds_of(time)
        if seconds is None:
            yield Fault(
                "not-a-time",
                f"--time: expected a limit in a form of Slurm's, such as 8:00:00 or 2-12:00:00, given {time!r}",
            )
        elif seconds < MIN_SECONDS:
            yield Fault(
                "too-small",
                f"--time: expected at least {MIN_SECONDS // 60} minutes, given {time}: the job is told to end "
                f"{LEAD_SECONDS // 60} to {LEAD_SECONDS // 60 + 1} minutes before its limit",
            )


def seconds_of(time: str) -> int | None:
    """Seconds of a time in Slurm's format; None if it is not one."""
    found = TIME.fullmatch(time)
    if not found:
        return None
    days, *numbers = (None if part is None else int(part) for part in found.groups())
    given = [number for number in numbers if number is not None]
    if days is None and len(given) < 3:  # minutes come first, else hours do
        given = [0, *given]
    hours, minutes, seconds = (*given, 0, 0)[:3]
    return (((days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The parts of a job's script.

    Attributes:
        name: the job's name.
        comment: tells crwn what the job runs.
        folder: for the job's log; must exist when the job starts.
        directory: the command's working directory.
        programs: the folder of the environment's `crwn`, `python` and `ray`.
        command: run on the first node once Ray is up.
        allocation: the resources requested.
        written_by: the command that wrote the script.
    """

    name: str
    comment: str
    folder: Path
    directory: Path
    programs: Path
    command: Sequence[str]
    allocation: Allocation
    written_by: str

    def faults(self) -> Iterator[Fault]:
        """Values that Slurm would misread, one sentence each."""
        for path in (self.folder, self.directory, self.programs):
            if not str(path).isprintable() or set("%\\") & set(str(path)):
                yield Fault(
                    "path-slurm-changes",
                    f"{str(path)!r}: expected a path of printable characters without % and \\, which Slurm gives a "
                    "meaning of its own",
                )

    def variables(self) -> set[str]:
        """Environment variables that sbatch would prefer to the script."""
        names = {name.removeprefix("--").replace("-", "_").upper() for name, _ in self._options()}
        names |= {"NO_REQUEUE"} | ({"TIMELIMIT"} if "TIME" in names else set())
        return {f"SBATCH_{name}" for name in names}

    def text(self) -> str:
        """The script."""
        head = "\n".join(
            f"#SBATCH {name}={_quoted(value)}" if value else f"#SBATCH {name}" for name, value in self._options()
        )
        return BODY.format(
            head=head,
            written_by=self.written_by.replace("\n", " "),
            directory=shlex.quote(str(self.directory)),
            programs=shlex.quote(str(self.programs)),
            command=shlex.join(self.command),
        )

    def _options(self) -> Iterator[tuple[str, str]]:
        """The options of sbatch; those without a value have an empty one."""
        yield from (
            ("--job-name", self.name),
            ("--comment", self.comment),
            ("--chdir", str(self.folder)),
            ("--output", "%j.log"),
            ("--open-mode", "append"),
            ("--requeue", ""),
            ("--signal", f"B:USR1@{LEAD_SECONDS}"),
            ("--ntasks-per-node", "1"),
        )
        for name, value in self.allocation.options().items():
            yield ("--cpus-per-task" if name == "--cpus-per-node" else name, value)
        for option in self.allocation.more:
            name, _, value = option.partition("=")
            yield name, value


def _quoted(value: str) -> str:
    """A value quoted for sbatch: in double quotes, where only these two characters are special."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


BODY = r"""#!/bin/bash
{head}

# Written by: {written_by}
# Edit it where this cluster needs something else, such as `module load` or another $RAY_TMPDIR, and give it to sbatch.

set -u
cd {directory} || exit 1
programs={programs}
command=({command})

# Ray's folder on every node: short, since Ray's sockets lie below it; this attempt's own, since nodes are shared.
export place=${{RAY_TMPDIR:-/tmp}}/crwn-$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}
mkdir -m 700 "$place" || exit 1
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

own_address() {{  # by which a node is seen that reaches the address in $1
    "$programs/python" -c 'if True:
        import socket, sys
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.connect((sys.argv[1], 9))
            print(probe.getsockname()[0])' "$1"
}}

free_ports() {{  # the first of six free ports at the address in $1, where no job with another number looks first
    local first=$((20000 + SLURM_JOB_ID % 1500 * 8)) at port
    while :; do
        for at in "$1" 127.0.0.1; do
            for port in {{0..5}}; do
                (: < "/dev/tcp/$at/$((first + port))") 2> /dev/null && first=$((first + 8)) && continue 3
            done
        done
        echo "$first"
        return
    done
}}

export programs head=$SLURMD_NODENAME RAY_USAGE_STATS_ENABLED=0
# Ray starts many processes, each with little time: where compiled modules are not kept, each compiles them again.
export PYTHONDONTWRITEBYTECODE=
address=$(own_address "${{nodes[1]:-127.0.0.1}}") || exit 1
export RAY_ADDRESS=$address:$(free_ports "$address")
# Ray's own limits are short where Python and its packages come over a network.
export RAY_agent_register_timeout_ms=120000 RAY_worker_register_timeout_seconds=300
RAY_AUTH_TOKEN=$("$programs/python" -c 'import secrets; print(secrets.token_hex(32))') || exit 1
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN  # whoever lacks this job's token cannot use its Ray

node() {{  # on each node: Ray, with the cores and GPUs that Slurm allotted there, until it is told to end
    local ended= tries=20 address=${{RAY_ADDRESS%:*}} port=${{RAY_ADDRESS##*:}} options
    umask 077
    if [[ $SLURMD_NODENAME == "$head" ]]; then
        tries=5
        options=(--head --port="$port" --ray-client-server-port=$((port + 1)) --include-dashboard=false)
    else
        mkdir "$place" || return 1
        options=(--address="$RAY_ADDRESS")
        address=$(own_address "$address") || return 1
    fi
    trap 'ended=1; kill "$ray"' USR1 TERM
    # More than once: others may be there before the first is ready for them, and Ray gives its agents 15 s to start.
    while [[ ! $ended ]] && ((tries-- > 0)); do
        if [[ $SLURMD_NODENAME != "$head" ]]; then
            until [[ $ended ]] || (: < "/dev/tcp/${{RAY_ADDRESS/://}}") 2> /dev/null; do sleep 1; done
            port=$(free_ports "$address")
        fi
        [[ ! $ended ]] || break
        "$programs/ray" start --block "${{options[@]}}" --node-ip-address="$address" --temp-dir="$place/ray" \
            --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="${{SLURM_GPUS_ON_NODE:-0}}" \
            --include-log-monitor=false --min-worker-port=0 --max-worker-port=0 \
            --dashboard-agent-grpc-port=$((port + 2)) --dashboard-agent-listen-port=$((port + 3)) \
            --metrics-export-port=$((port + 4)) --runtime-env-agent-port=$((port + 5)) > "$place/start.log" 2>&1 &
        ray=$!
        wait "$ray"
        [[ $SLURMD_NODENAME != "$head" || ! -e $place/ray/ray_current_cluster ]] || break  # nobody takes its place
    done
    [[ $ended ]] || {{ echo "Ray did not stay up on $SLURMD_NODENAME:" && cat "$place/start.log"; }}
    for _ in {{1..10}}; do kill -0 "$ray" 2> /dev/null || break; sleep 1; done  # Slurm kills after half a minute
    pkill -KILL -f -- "$place/ray"
    rm -rf "$place"
}}

echo "$(date +%T) job $SLURM_JOB_ID, attempt $((${{SLURM_RESTART_COUNT:-0}} + 1)): ${{nodes[*]}}"
ray=  run=  again=
# Slurm sends USR1 before the time limit, and TERM when the job is stopped or has to make room.
trap 'again=1; [[ ! $run ]] || kill "$run"' USR1
trap 'again=0; [[ ! $run ]] || kill "$run"' TERM
srun --ntasks="${{#nodes[@]}}" --ntasks-per-node=1 --cpu-bind=quiet,none --kill-on-bad-exit=0 --wait=0 --export=ALL \
    bash -c "$(declare -f); node" &
ray=$!
until [[ -e $place/ray/ray_current_cluster ]]; do  # written by Ray once it is up
    [[ -d $place ]] && kill -0 "$ray" 2> /dev/null || {{ echo "Ray did not start on $head" && exit 1; }}
    [[ ! $again ]] || break
    sleep 1
done
code=1
if [[ ! $again ]]; then
    "${{command[@]}}" &
    run=$!
    [[ ! $again ]] || kill "$run"
    while wait "$run"; kill -0 "$run" 2> /dev/null; do :; done  # a signal ends a wait, too
    trap : USR1 TERM
    wait "$run"
    code=$?
fi
kill -USR1 "$ray" && wait "$ray"  # srun passes USR1 on, and would kill everything at TERM
if [[ $again == 1 && $run && $code != 0 ]]; then
    echo "$(date +%T) the time limit is near: the job is requeued, and will resume from here"
    scontrol requeue "$SLURM_JOB_ID"
fi
echo "$(date +%T) ended with exit code $code"
exit "$code"
"""
