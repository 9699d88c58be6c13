"""What only computes goes to the process in the background, and nothing else does."""

from __future__ import annotations

import collections
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.sharing import COMPUTING, Sharing, is_behind

WAITING = [f"tests/integration/test_{number}.py::test" for number in range(20)]
COMPUTED = [f"{COMPUTING[0]}test_a.py::test[{number}]" for number in range(10)]


class Node:
    """A test process as the scheduler sees it."""

    def __init__(self, number: int) -> None:
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.queue: collections.deque[int] = collections.deque()
        self.shutting_down = False

    def send_runtest_some(self, indexes: list[int]) -> None:
        assert not self.shutting_down
        self.queue.extend(indexes)

    def shutdown(self) -> None:
        self.shutting_down = True


def played(processes: int, tests: list[str], order: list[int]) -> dict[str, list[str]]:
    """Who ran what, if they took turns like this."""
    options: Any = SimpleNamespace(
        getvalue=lambda _: [f"{processes}*popen"], option=SimpleNamespace(loadscopereorder=True)
    )
    scheduler = Sharing(options)
    nodes = [Node(number) for number in range(processes)]
    for node in nodes:
        scheduler.add_node(node)
    for node in nodes:
        scheduler.add_node_collection(node, tests)
    scheduler.schedule()
    ran: dict[str, list[str]] = {node.gateway.id: [] for node in nodes}
    while any(node.queue for node in nodes):
        for number in order:
            node = nodes[number]
            if node.queue:
                index = node.queue.popleft()
                ran[node.gateway.id].append(tests[index])
                scheduler.mark_test_complete(node, index)
    assert all(node.shutting_down for node in nodes)
    assert sorted(test for some in ran.values() for test in some) == sorted(tests)
    return ran


def test_the_last_process_computes_and_the_others_help_in_the_end() -> None:
    ran = played(4, [*WAITING, *COMPUTED], [0, 1, 2, 3])
    assert set(ran["gw3"]) < set(COMPUTED)
    assert len(ran["gw3"]) >= 5
    for name in ("gw0", "gw1", "gw2"):
        waited = [test in WAITING for test in ran[name]]
        assert waited == sorted(waited, reverse=True), "it computed before all that waits had begun"


def test_where_it_is_done_first_it_takes_nothing_else() -> None:
    ran = played(4, [*WAITING, *COMPUTED], [3, 3, 3, 3, 0, 1, 2])
    assert ran["gw3"] == COMPUTED


@pytest.mark.parametrize("tests", [WAITING, COMPUTED, WAITING[:1], WAITING[:5]], ids=len)
def test_everything_runs_whatever_there_is(tests: list[str]) -> None:
    ran = played(4, tests, [0, 1, 2, 3])
    if tests != COMPUTED:
        assert ran.get("gw3") == []


def test_two_processes_share_everything() -> None:
    assert not any(is_behind(f"gw{number}", 2) for number in range(2))
    ran = played(2, [*WAITING, *COMPUTED], [0, 1])
    assert all(any(test in WAITING for test in some) for some in ran.values())
