"""`nexus reconcile` and `nexus worker`: the work of an installation's operator."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from nexus.cli.options import Whole, common
from nexus.cli.session import Session, pass_session

if TYPE_CHECKING:
    from nexus.engine.recovery import Report

_WORDS: Final = {
    "expired": "Expired",
    "taken_over": "Taken over",
    "runs_lost": "Lost run",
    "lost": "Lost",
    "drifted": "Drifted",
    "orphans": "Removed orphan",
    "pool": "Pool",
    "bodies_erased": "Erased old code and output of",
    "problems": "Problem",
}


@click.command()
@common
@pass_session
def reconcile(session: Session) -> int:
    """Make resources and live sandboxes the same set again, now.

    Carries on what a dead process left half done, expires what is due, removes resources that nobody owns, and says
    of a sandbox whose resource is gone that it is lost. May be called at any time, several at once too. Exits with 1
    when there was something that it could not do.
    """
    with session.output.progress("Reconciling"):
        report = session.engine.reconcile(session.operator)
    _tell(session, report)
    if not any(report.to_dict().values()):
        session.output.hint("Everything is as it should be.")
    return int(bool(report.problems))


@click.command()
@click.option("--once", is_flag=True, help="One round, then end.")
@click.option(
    "--interval", type=Whole("seconds", 1, 86_400), default=10, metavar="SECONDS", help="Between rounds.  [10]"
)
@common
@pass_session
def worker(session: Session, once: bool, interval: int) -> int:
    """Expire, recover and reconcile until told to stop.

    Any number of workers may run. SIGTERM and Ctrl-C let the round in progress finish. Prints what was done, with
    --json one object for each round that did something.
    """
    from nexus.engine.worker import Schedule, Worker

    def tell(report: Report) -> None:
        if once or any(report.to_dict().values()):
            _tell(session, report)
            session.output.flush()

    session.door = "worker"
    work = Worker(session.engine, Schedule(sweep=interval, reconcile=max(60, interval)), tell)
    if once:
        return int(bool(work.run_once().problems))
    with _drained_by_signals(work.stop), _warnings_shown(session):
        session.output.hint(f"Working; a round every {interval} s. Ctrl-C ends it.")
        work.run()
    return 0


def _tell(session: Session, report: Report) -> None:
    done = report.to_dict()
    if session.output.json:
        session.output.value(done, compact=True)
        return
    for kind, entries in done.items():
        for entry in entries:
            session.output.line(f"{_WORDS[kind]}: {entry}")


@contextmanager
def _warnings_shown(session: Session) -> Iterator[None]:
    """A round that fails as a whole is logged by the worker, not raised: its user has to hear of it."""
    import logging

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            session.output.problem("round_failed", record.getMessage())

    logger, handler = logging.getLogger("nexus.worker"), Shown()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _drained_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    for number in before:
        signal.signal(number, lambda *_: stop())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
