"""Which of the test processes gets which tests.

Most tests wait for programs, servers and deadlines, and want a processor at once when these answer. What only computes
needs one for minutes, and nobody waits for it. So one process, the last, does that alone and makes way for the others:
on two processors, a part of the suite with much of both took 137 s instead of 175.
"""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

COMPUTING: Final = ("tests/simulation/", "tests/model/")
_NICENESS: Final = 10
_FEWEST: Final = 3
"""Test processes of which one can be spared."""


class Sharing(LoadGroupScheduling):  # type: ignore[misc]  # has no types
    """As `--dist=loadgroup`, with computing for the process in the background first and for the others last."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        behind = is_behind(node.gateway.id, self.numnodes)
        scope = next((scope for scope in self.workqueue if scope.startswith(COMPUTING) == behind), None)
        if scope is not None:
            self.workqueue.move_to_end(scope, last=False)
        elif behind:
            node.shutdown()  # whatever waits for something would come too late there
            return
        super()._assign_work_unit(node)


def is_behind(process: str, processes: int) -> bool:
    """Whether this test process, `gw0` to `gw…`, is the one in the background."""
    return processes >= _FEWEST and process == f"gw{processes - 1}"


def make_way(config: pytest.Config) -> None:
    """Called in each test process: what is in the background says so to the system."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    if given and is_behind(given["workerid"], given["workercount"]):
        os.nice(_NICENESS)
