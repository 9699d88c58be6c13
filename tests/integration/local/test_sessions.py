"""Sessions whose programs turn against what keeps them: they stand still when no run is on, whatever they say."""

from __future__ import annotations

import threading

import pytest

from nexus.adapters.agent.guest.nursery import MAX_SESSIONS
from nexus.adapters.providers.local import LocalProvider
from nexus.domain.errors import ProviderUnavailable
from nexus.domain.provider import Observed
from tests.integration.local.conftest import MakeSpec, Run
from tests.support.forged_sessions import CLAIMS_TO_BE_OVER, CLAIMS_TO_HAVE_DIED, NAMES_ANOTHER


@pytest.fixture
def sandbox(provider: LocalProvider, make_spec: MakeSpec) -> Observed:
    return provider.ensure(make_spec(network="none"))


def beats(run: Run, sandbox: Observed) -> int:
    return int(run(sandbox.ref, "cat beat 2>/dev/null | wc -c", "bash").stdout)


@pytest.mark.parametrize(
    ("code", "exit_code"), [(CLAIMS_TO_BE_OVER, 0), (CLAIMS_TO_HAVE_DIED, 3)], ids=["over", "dead"]
)
def test_what_claims_to_be_over_stands_still(run: Run, sandbox: Observed, code: str, exit_code: int) -> None:
    run(sandbox.ref, "x = 1", session="work")
    lied = run(sandbox.ref, code, session="work")
    assert (lied.exit_code, lied.timed_out) == (exit_code, False)
    before = beats(run, sandbox)
    threading.Event().wait(0.3)
    assert beats(run, sandbox) == before
    assert run(sandbox.ref, "print(2)").stdout == b"2\n"
    anew = run(sandbox.ref, "print('x' in globals())", session="work", mode="fresh")
    assert (anew.stdout, anew.session_started) == (b"False\n", True)


def test_only_what_belongs_to_the_session_can_be_named_its_keeper(run: Run, sandbox: Observed) -> None:
    run(sandbox.ref, "x = 1", session="work")
    late = run(sandbox.ref, NAMES_ANOTHER, session="work", timeout=1)
    assert late.timed_out
    assert run(sandbox.ref, "print(x)", session="work").stdout == b"1\n"


def test_there_are_only_so_many_sessions(run: Run, sandbox: Observed) -> None:
    for number in range(MAX_SESSIONS):
        assert run(sandbox.ref, "x = 1", session=f"s{number}").session_started
    with pytest.raises(ProviderUnavailable, match=f"{MAX_SESSIONS} sessions"):
        run(sandbox.ref, "x = 1", session="one-more")
    assert run(sandbox.ref, "x = 2", session="s0", mode="fresh").exit_code == 0
    assert run(sandbox.ref, "print(x)", session="s0").stdout == b"2\n"


def test_a_hundred_runs_leave_one_process(run: Run, sandbox: Observed) -> None:
    code = "import os\nn = globals().get('n', 0) + 1\nprint(n, len([x for x in os.listdir('/proc') if x.isdigit()]))"
    seen = [run(sandbox.ref, code, session="work").stdout.split() for _ in range(100)]
    assert [int(number) for number, _ in seen] == list(range(1, 101))
    assert max(int(processes) for _, processes in seen) <= 4, "init, keeper, the run, and nobody else"
