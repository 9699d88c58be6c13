"""One of the other processes that verify a long log, as `strands` starts them.

From a pipe that all of them read it takes the numbers of stretches. It says, a line of JSON each, that it has opened
the store, and what came of each stretch. Where it is no fork, it is told in pickles on its stdin what to do:
`python -m nexus.engine.audit.strand`.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final

from nexus.domain.ports import Reading
from nexus.engine.audit.evidence import LogEvidence
from nexus.engine.audit.stretches import Stretch, check

NUMBER: Final = 4
"""Bytes of a number in the pipe, which are read at once or not at all."""
OPEN: Final = "open"
PIPE: Final = 3
"""The pipe's descriptor where it is no fork."""


def numbers(pipe: int) -> Iterator[int]:
    """Those that nobody else takes, until there are no more."""
    while number := os.read(pipe, NUMBER):
        yield int.from_bytes(number, "big")


def work(again: Callable[[], Reading], what: tuple[Sequence[Stretch], Sequence[int]], pipe: int, say: int) -> None:
    stretches, stops = what
    with closing(again()) as reading:
        _say(say, OPEN)
        for number in numbers(pipe):
            found = check(LogEvidence(reading), stretches[number], stops)
            _say(say, [number, None if found is None else list(found.items())])


def _say(file: int, what: Any) -> None:
    # Where the one who started it is gone, this fails, and ends it.
    os.write(file, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    again, what = pickle.load(sys.stdin.buffer)  # noqa: S301 - from who started this process
    work(again, what, PIPE, sys.stdout.fileno())
    os._exit(0)  # to tidy up an interpreter takes a while
