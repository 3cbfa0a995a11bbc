"""Shared by the fuzzers: damaging a file, a process that may crash, one line per kind of file."""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

Counts: TypeAlias = "collections.Counter[str]"
"""How often each outcome was seen."""

Rare: TypeAlias = Callable[[bytes, int, random.Random], bytes]
"""A fault at a place of a file, other than a flipped bit."""

LONGEST = 60.0
"""Seconds for one damaged file; then the process hangs and is ended."""


def cut(content: bytes, place: int, _: random.Random) -> bytes:
    """The file ends early."""
    return content[:place]


def taken_out(content: bytes, place: int, chance: random.Random) -> bytes:
    """Up to eight bytes are removed."""
    return content[:place] + content[place + chance.randint(1, 8) :]


def zeroed(content: bytes, place: int, chance: random.Random) -> bytes:
    """Up to 64 bytes are zero, as in a block that never reached the disk."""
    length = min(chance.randint(1, 64), len(content) - place)
    return content[:place] + bytes(length) + content[place + length :]


def damage(content: bytes, chance: random.Random, rare: Sequence[Rare] = (cut, taken_out)) -> bytes:
    """The content with one fault: each rare kind one time in ten, otherwise a flipped bit."""
    what, place = chance.randrange(10), chance.randrange(len(content))
    if what < len(rare):
        return rare[what](content, place, chance)
    changed = bytearray(content)
    changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def in_child(work: Callable[[Iterable[int]], Iterable[str]], flips: int) -> Counts:
    """Do work in a separate process, which may abort or hang; that is counted, and another process continues after it.

    Args:
        work: given the numbers of the flips, yields the outcome of each.
        flips: how many.

    Returns:
        How often each outcome was seen; `abort` and `hang` among them.
    """
    counts: Counts = collections.Counter()
    context = multiprocessing.get_context("fork")  # what is imported by now need not be imported again
    done = 0
    while done < flips:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_send_all, args=(work, range(done, flips), sender))
        child.start()
        sender.close()
        try:
            while done < flips:
                if not receiver.poll(LONGEST):
                    counts["hang"] += 1
                    break
                counts[receiver.recv()] += 1
                done += 1
        except EOFError:
            counts["abort"] += 1
        finally:
            receiver.close()
        if done < flips:
            child.kill()
            done += 1
        child.join()
    return counts


def _send_all(work: Callable[[Iterable[int]], Iterable[str]], numbers: Iterable[int], sender: Connection) -> None:
    for outcome in work(numbers):
        sender.send(outcome)


def main(
    description: str,
    kinds: Mapping[str, str],
    fuzz: Callable[[str, int, int], Counts],
    outcomes: Sequence[str],
    is_fault: Callable[[str, str], bool],
) -> int:
    """Damage every kind of file and print a line for each.

    Args:
        description: of the command.
        kinds: their names, each with a note for its line.
        fuzz: given a kind's name, a number of flips and a seed, damages its files and counts the outcomes.
        outcomes: in the order in which they are shown.
        is_fault: whether an outcome of a kind's file is a fault of ours.

    Returns:
        The exit code: 0 where nothing is wrong.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=2000, help="times that the files of each kind are damaged")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=list(kinds), metavar="KIND")
    parser.add_argument("--json", type=Path, help="also write the figures there", metavar="FILE")
    given = parser.parse_args()
    found: dict[str, dict[str, int]] = {}
    is_well = True
    for name in given.kinds:
        start = time.perf_counter()
        counts = fuzz(name, given.flips, given.seed)
        found[name] = {outcome: counts[outcome] for outcome in outcomes}
        figures = ", ".join(f"{outcome} {number}" for outcome, number in found[name].items())
        seconds = time.perf_counter() - start
        print(f"{name} ({kinds[name]}), seed {given.seed}: {figures}; {seconds:.0f} s", flush=True)
        is_well &= not any(counts[outcome] and is_fault(name, outcome) for outcome in outcomes)
    if given.json is not None:
        figures = {"flips": given.flips, "seed": given.seed, "kinds": found}
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if is_well else 1
