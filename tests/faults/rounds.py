"""kill -9 as often as it takes: `python -m tests.faults.rounds forked 800`, or `killed 60` with all that is real."""

from __future__ import annotations

import itertools
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.faults.kill_rounds import COMMANDS, forked, kill_and_heal, started, steps_of
from tests.support import postgres


def main(how: str, count: int) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kind, url, carry = "fake", "", forked
        if how == "killed":
            kind, carry = "local", started
            url = stack.enter_context(postgres.database(prepared=True)).application
        rounds = [(command, step) for command in COMMANDS for step in steps_of(folder, kind, url, command)]
        for command, step in itertools.islice(itertools.cycle(rounds), count):
            kill_and_heal(folder, kind, url, command, step, carry)
    print(f"counted: {count} (at {len(rounds)} steps)")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
