"""The database's clock as a process reads it: never ahead, and not set back by a slow answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from nexus.adapters.stores.postgres.clock import GOOD_FOR, ServerClock

START = datetime(2030, 1, 1, tzinfo=UTC)


class Server:
    """A server, and a machine whose uptime is what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uptime = 1000.0
        self.clock = ServerClock()
        self.looks = 0
        self.set_by = timedelta()
        monkeypatch.setattr(ServerClock, "ticks", staticmethod(lambda: self.uptime))

    def time(self) -> datetime:
        return START + timedelta(seconds=self.uptime) + self.set_by

    def answering(self, there: float, back: float) -> Callable[[], datetime]:
        """A look that takes so many seconds until the server reads its clock, and so many until the answer is here."""

        def look() -> datetime:
            self.looks += 1
            self.uptime += there
            seen = self.time()
            self.uptime += back
            return seen

        return look


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


@pytest.mark.parametrize(("there", "back"), [(0.006, 0.0), (0.0, 0.006), (0.003, 0.003)])
def test_it_is_never_ahead_and_behind_by_the_way_back_at_most(server: Server, there: float, back: float) -> None:
    """What is decided now is recorded later, by the server's clock: it must not be said to have been earlier."""
    told = server.clock.now(server.answering(there, back))
    assert server.time() - timedelta(seconds=back) <= told <= server.time()


def test_a_slower_answer_does_not_set_it_back(server: Server) -> None:
    told = server.clock.now(server.answering(0.0, 0.0))
    server.clock.set(server.answering(0.0, 0.5)())
    assert server.clock.now(server.answering(0.0, 0.0)) == told + timedelta(seconds=0.5) == server.time()
    server.clock.set(server.answering(0.5, 0.0)())
    assert server.clock.now(server.answering(0.0, 0.0)) == server.time()


def test_a_quicker_answer_makes_it_more_exact(server: Server) -> None:
    told = server.clock.now(server.answering(0.0, 0.5))
    assert server.time() - told == timedelta(seconds=0.5)
    server.clock.set(server.answering(0.5, 0.0)())
    assert server.clock.now(server.answering(0.0, 0.0)) == server.time()


def test_a_server_whose_clock_was_set_back_is_believed_in_time(server: Server) -> None:
    look = server.answering(0.0, 0.0)
    server.clock.now(look)
    server.set_by = timedelta(hours=-1)
    for _ in range(5):
        server.uptime += GOOD_FOR / 4
        server.clock.set(look())
    assert server.clock.now(look) == server.time()


def test_it_is_asked_only_when_the_last_answer_is_old(server: Server) -> None:
    look = server.answering(0.0, 0.0)
    for _ in range(11):
        server.clock.now(look)
        server.uptime += GOOD_FOR / 4
    assert server.looks == 3, "at the first, the sixth and the eleventh"
