"""Machines on this machine, each with its own address, processes, files and ssh server, and a shared folder.

A machine is a set of namespaces. Its files are this machine's under a layer of its own, so that whatever is installed
here is there too, and nothing that is written there arrives here. All of them hang on one process, which lives as long
as a pipe from the test is open: however the test ends, the kernel ends every process of theirs, and with those go the
namespaces, cables and mounts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

PACKAGES = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "ip": "iproute2",
    "curl": "curl",
    "make": "make",
}
"""Commands that the machines need, and the Debian packages that bring them."""
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where a user's $PATH may not look."""

USER = "me"
HOME = Path("/home/me")
SHARED = Path("/shared")
START_SECONDS = 30.0

# $1 a folder for its files, $2 its name, $3 what is shared, then what lies on other disks here and is to be seen there.
BOOT = f"""\
set -eu
place=$1 name=$2 shared=$3
shift 3
mount -t tmpfs machine "$place"
mkdir "$place/upper" "$place/work" "$place/root"
root=$place/root
mount -t overlay machine -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --bind /dev "$root/dev"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
for own in /dev/shm /tmp /run /home; do mount -t tmpfs tmpfs "$root$own"; done
mkdir -p "$root{SHARED}" "$root/run/sshd" "$root{HOME}"
mount --bind "$shared" "$root{SHARED}"
for seen; do mkdir -p "$root$seen"; mount --bind -o ro "$seen" "$root$seen"; done
echo "$name" > /proc/sys/kernel/hostname
echo "127.0.0.1 localhost $name" > "$root/etc/hosts"
sed -i 's|^root:.*|{USER}:x:0:0::{HOME}:/bin/bash|' "$root/etc/passwd"
exec chroot "$root" sh -c '
    ssh-keygen -q -t ed25519 -N "" -f /run/host_key
    echo up
    exec /usr/sbin/sshd -D -e -f /dev/null -h /run/host_key -o PidFile=none -o StrictModes=no'
"""


def whats_missing(packages: Mapping[str, str] = PACKAGES) -> str:
    """Why machines cannot be made here, with Debian's commands to fix it; empty if they can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces and mounts"
    path = f"{os.environ['PATH']}:{SBIN}"
    if missing := [package for command, package in packages.items() if shutil.which(command, path=path) is None]:
        return f"needs the Debian packages {', '.join(missing)}"
    tried = "mount -t tmpfs t /mnt && cd /mnt && mkdir u w r && mount -t overlay o -o lowerdir=/,upperdir=u,workdir=w r"
    tried += " && ip link add lan type bridge && ip link add here type veth peer name there"
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "sh", "-c", tried],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"needs the right to make namespaces, mounts and bridges: {done.stderr.strip()}" if done.returncode else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One that runs.

    Attributes:
        name: its host name, and that of its cable at the switch.
        address: on the switch.
        init: the process id, here, of its first process.
        environment: what its user's commands see.
        started: processes here that entered machines of the network, all of which end with it.
    """

    name: str
    address: str
    init: int
    environment: dict[str, str]
    started: list[subprocess.Popen[str]]

    def path(self, path: Path) -> Path:
        """The path from here to one of its files."""
        return Path(f"/proc/{self.init}/root") / path.relative_to("/")

    def start(self, command: str, log: Path) -> subprocess.Popen[str]:
        """Start a command as its user, with the output in a file here."""
        with log.open("w") as output:
            process = subprocess.Popen(
                self._entered(command),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.started.append(process)
        return process

    def run(self, command: str, seconds: float = 300) -> str:
        """The output of a command run as its user, which must succeed."""
        done = subprocess.run(
            self._entered(command),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {command}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def processes(self) -> list[str]:
        """The command lines of all its processes, regardless of their parents."""
        namespace = Path(f"/proc/{self.init}/ns/pid").readlink()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if Path(f"/proc/{process.pid}/ns/pid").readlink() == namespace:
                    found.append(" ".join(process.cmdline()))
        return found

    def _entered(self, command: str) -> list[str]:
        spaces = ("--net", "--mount", "--uts", "--pid", "--root", "--wd")
        return ["nsenter", "--target", str(self.init), *spaces, "bash", "-c", command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A switch with machines.

    Attributes:
        holder: the process id, here, of the process that all of it hangs on.
        folder: for the machines' files and logs.
        shared: the folder that all machines see as /shared.
        prefix: of all addresses, as 10.0.0.
        seen: folders of this machine that may lie on a disk of their own, for all machines to see.
        started: processes here that entered its machines.
    """

    holder: int
    folder: Path
    shared: Path
    prefix: str
    seen: tuple[Path, ...]
    started: list[subprocess.Popen[str]]

    def add(self, name: str, address: str, environment: dict[str, str]) -> Machine:
        """Start a machine, and wait until it can be logged in to."""
        place, log = self.folder / name, self.folder / f"{name}.log"
        place.mkdir()
        spaces = ("--net", "--mount", "--uts", "--pid", "--fork", "--kill-child")
        words = [place, name, self.shared, *self.seen]
        with log.open("w") as output:
            process = subprocess.Popen(
                [*self._entered("--mount", "--pid"), "unshare", *spaces, "sh", "-c", BOOT, "boot", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.started.append(process)
        until = time.monotonic() + START_SECONDS
        while "up\n" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        init = psutil.Process(process.pid).children(recursive=True)[-1].pid
        assert address.startswith(self.prefix)
        self._ip(f"link add {name} master switch up type veth peer name eth0 netns {init}")
        machine = Machine(name=name, address=address, init=init, environment=environment, started=self.started)
        for command in ("link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"):
            machine.run(f"PATH={SBIN} ip {command}")
        machine.run(f"PATH={SBIN} ip route add default via {self.prefix}254")  # where nothing answers
        return machine

    def unplug(self, machine: Machine) -> None:
        """Pull the machine's cable: it continues alone, and the others hear nothing, not even that it is gone."""
        self._ip(f"link set {machine.name} down")

    def plug(self, machine: Machine) -> None:
        """Put it back."""
        self._ip(f"link set {machine.name} up")

    def _entered(self, *spaces: str) -> list[str]:
        return ["nsenter", "--target", str(self.holder), "--net", *spaces]

    def _ip(self, command: str) -> None:
        subprocess.run(
            [*self._entered(), "ip", *command.split()], env={**os.environ, "PATH": f"/usr/bin:/bin:{SBIN}"}, check=True
        )


def compile_ray() -> None:
    """Compile what Ray's processes import.

    Machines see the environment read-only, so each of these processes would compile it again: on a busy machine for
    longer than the 15 seconds that Ray gives some of them to start.
    """
    (ray,) = importlib.util.find_spec("ray").submodule_search_locations  # type: ignore[union-attr]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    for command in (["-m", "compileall", "-q", ray], ["-c", "import ray.dashboard.agent, ray.tune"]):
        subprocess.run([sys.executable, *command], env=environment, check=True)


@contextlib.contextmanager
def network(folder: Path, prefix: str, seen: tuple[Path, ...]) -> Iterator[Network]:
    """A switch without machines. With the end of the `with` block, all that was added to it is gone."""
    compile_ray()
    (folder / "shared").mkdir(parents=True)
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "cat"], stdin=subprocess.PIPE
    )
    started: list[subprocess.Popen[str]] = []
    try:
        until = time.monotonic() + START_SECONDS
        while not (children := psutil.Process(holder.pid).children()):
            assert time.monotonic() < until
            time.sleep(0.01)
        made = Network(
            holder=children[0].pid,
            folder=folder,
            shared=folder / "shared",
            prefix=prefix,
            seen=seen,
            started=started,
        )
        made._ip("link add switch up type bridge")
        yield made
    finally:
        assert holder.stdin is not None
        holder.stdin.close()
        for process in (holder, *started):
            process.wait(START_SECONDS)
