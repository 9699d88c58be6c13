"""Lists, pages and references, and that nobody sees what is another's."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nexus.domain.errors import AmbiguousReference, InvalidInput, NexusError, NotAllowed, SandboxNotFound
from nexus.domain.values import Principal, SandboxState, StopReason, system_principal
from nexus.projections.cursor import Cursor
from nexus.projections.queries import LARGEST_PAGE, SandboxQueries
from tests.unit.domain.story import at, pause_requested, paused, run_started, started, stop_requested, stopped
from tests.unit.projections.fleet import ADA, BOB, Fleet

CHIEF = Principal("chief", is_admin=True)
STRANGER = Principal("ada", tenant_id="elsewhere")


def stop(fleet: Fleet, sandbox_id: str) -> None:
    fleet.tell(sandbox_id, started(), stop_requested(), stopped())


# --- pages -----------------------------------------------------------------------------------------------------------
def names(queries: SandboxQueries, principal: Principal = ADA, **asked: object) -> list[str]:
    """All names of a list, page by page."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = queries.page(principal, cursor=cursor, **asked)  # type: ignore[arg-type]
        found.extend(view.name for view in page.sandboxes)
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_newest_first_page_by_page(fleet: Fleet, queries: SandboxQueries) -> None:
    for number in range(7):
        fleet.create(f"n{number}")
    expected = [f"n{number}" for number in reversed(range(7))]
    for limit in (1, 2, 3, 6, 7, 8, LARGEST_PAGE):
        assert names(queries, limit=limit) == expected
    assert queries.page(ADA, limit=7).next_cursor is None, "no cursor to an empty page"


def test_pages_do_not_move_when_sandboxes_come_and_change(fleet: Fleet, queries: SandboxQueries) -> None:
    made = [fleet.create(f"n{number}") for number in range(6)]
    first = queries.page(ADA, limit=3)
    fleet.create("newer")
    fleet.tell(made[1], started())
    stop(fleet, made[0])
    second = queries.page(ADA, limit=10, cursor=first.next_cursor)
    assert [view.name for view in (*first.sandboxes, *second.sandboxes)] == ["n5", "n4", "n3", "n2", "n1", "n0"]


def test_sandboxes_of_the_same_moment_are_all_on_some_page(fleet: Fleet, queries: SandboxQueries) -> None:
    for _ in range(9):
        fleet.create("twin")
        fleet.clock -= timedelta(seconds=1)
    pages = names(queries, limit=2)
    assert len(pages) == 9


def test_filters(fleet: Fleet, queries: SandboxQueries) -> None:
    fleet.create("creating", provider="docker")
    fleet.tell(fleet.create("active", labels={"team": "data", "env": "prod"}), started())
    fleet.tell(fleet.create("paused", labels={"team": "data"}), started(), pause_requested(), paused())
    stop(fleet, fleet.create("stopped", labels={"team": "web", "env": "prod"}))
    assert names(queries) == ["stopped", "paused", "active", "creating"]
    assert names(queries, states=["active", SandboxState.PAUSED]) == ["paused", "active"]
    assert names(queries, states=[]) == []
    assert names(queries, provider="docker") == ["creating"]
    assert names(queries, labels={"team": "data"}) == ["paused", "active"]
    assert names(queries, labels={"team": "data", "env": "prod"}) == ["active"]
    assert names(queries, labels={"team": "prod"}) == names(queries, labels={"env": "data"}) == []
    assert names(queries, name="paused") == ["paused"]
    assert names(queries, name="pause%") == []
    assert names(queries, states=["active"], labels={"env": "prod"}, provider="fake", limit=1) == ["active"]


def test_who_sees_what(fleet: Fleet, queries: SandboxQueries) -> None:
    fleet.create("adas")
    fleet.create("bobs", user_id="bob")
    fleet.create("strangers", tenant_id="elsewhere")
    assert names(queries, ADA) == ["adas"]
    assert names(queries, BOB) == ["bobs"]
    assert names(queries, STRANGER) == ["strangers"]
    assert names(queries, CHIEF) == []
    assert names(queries, CHIEF, all_users=True) == ["bobs", "adas"]
    assert names(queries, system_principal(), all_users=True) == ["strangers", "bobs", "adas"]
    with pytest.raises(NotAllowed):
        queries.page(ADA, all_users=True)


@pytest.mark.parametrize("limit", [0, -1, LARGEST_PAGE + 1, True, 1.0, "10", None])
def test_a_limit_that_cannot_be(queries: SandboxQueries, limit: object) -> None:
    with pytest.raises(InvalidInput):
        queries.page(ADA, limit=limit)  # type: ignore[arg-type]


def test_a_state_that_cannot_be(queries: SandboxQueries) -> None:
    with pytest.raises(InvalidInput) as caught:
        queries.page(ADA, states=["aktiv"])
    assert "paused" in caught.value.hint


@pytest.mark.parametrize("text", ["\udcff", "nul\0", 7, b"a"])
def test_a_text_that_cannot_be_looked_for(queries: SandboxQueries, text: object) -> None:
    with pytest.raises(InvalidInput):
        queries.page(ADA, labels={"team": text})  # type: ignore[dict-item]
    with pytest.raises(InvalidInput):
        queries.page(ADA, name=text)  # type: ignore[arg-type]
    assert queries.page(ADA, name="日本").sandboxes == ()


# --- cursors ---------------------------------------------------------------------------------------------------------
def test_a_cursor_fits_its_own_list_alone(fleet: Fleet, queries: SandboxQueries) -> None:
    for number in range(4):
        fleet.create(f"n{number}", labels={"team": "data"})
    cursor = queries.page(ADA, limit=2).next_cursor
    assert cursor is not None
    assert len(queries.page(ADA, limit=1, cursor=cursor).sandboxes) == 1, "the size of a page may change"
    with pytest.raises(InvalidInput):
        queries.page(BOB, cursor=cursor)
    with pytest.raises(InvalidInput):
        queries.page(STRANGER, cursor=cursor)
    for other in ({"states": ["active"]}, {"labels": {"team": "data"}}, {"name": "n1"}, {"provider": "fake"}):
        with pytest.raises(InvalidInput):
            queries.page(ADA, cursor=cursor, **other)


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "zz", "7b7d", "5b5d", "6e756c6c", "5b312c322c335d", "ff" * 40, "é", "5b" * 100_000, "00"],
    ids=lambda text: text[:8],
)
def test_a_cursor_that_nobody_gave(queries: SandboxQueries, cursor: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        queries.page(ADA, cursor=cursor)
    assert caught.value.hint


def test_a_cursor_shows_nothing_and_survives_a_shell() -> None:
    text = Cursor("2030-01-01T00:00:00.000000+00:00", "sb_1").to_text(["ada"])
    assert text.isalnum()
    assert "ada" not in text


# --- references ------------------------------------------------------------------------------------------------------
A, B, C = (f"sb_{digits.ljust(32, '0')}" for digits in ("abcd1", "abcd2", "beef1"))


def found(queries: SandboxQueries, reference: str, principal: Principal = ADA) -> str:
    return queries.by_reference(reference, principal).sandbox_id


def test_by_id_and_by_its_beginning(fleet: Fleet, queries: SandboxQueries) -> None:
    for sandbox_id in (A, B, C):
        fleet.create(f"n-{sandbox_id[3:8]}", sandbox_id=sandbox_id)
    assert found(queries, A) == A
    assert found(queries, "sb_abcd1") == found(queries, "abcd1") == found(queries, A[3:]) == found(queries, A[:-1]) == A
    assert found(queries, "beef") == found(queries, "sb_beef") == C
    for too_short in ("bee", "sb_bee", "b", "sb_", ""):
        with pytest.raises(SandboxNotFound):
            found(queries, too_short)
    for not_an_id in ("beeg", "BEEF1", "sb_beef1%", "sb_beef_", "sb_" + "0" * 33, "beef1\n"):
        with pytest.raises(SandboxNotFound):
            found(queries, not_an_id)


def test_a_beginning_of_several_names_them(fleet: Fleet, queries: SandboxQueries) -> None:
    for sandbox_id in (A, B, C):
        fleet.create(f"n-{sandbox_id[3:8]}", sandbox_id=sandbox_id)
    with pytest.raises(AmbiguousReference) as caught:
        found(queries, "abcd")
    assert set(caught.value.details["candidates"]) == {A, B}


def test_by_name(fleet: Fleet, queries: SandboxQueries) -> None:
    first = fleet.create("job")
    assert found(queries, "job") == first
    stop(fleet, first)
    assert found(queries, "job") == first, "the newest stopped one"
    second = fleet.create("job")
    assert found(queries, "job") == second
    stop(fleet, second)
    assert found(queries, "job") == second
    for other in ("jo", "JOB", "job ", "j%", "job' OR 1=1 --", "\udcff", "job\0", "日本", "\x1b[2J"):
        with pytest.raises(SandboxNotFound):
            found(queries, other)


def test_a_name_in_use_wins_over_an_id_and_an_id_over_history(fleet: Fleet, queries: SandboxQueries) -> None:
    fleet.create("other", sandbox_id=C)
    named = fleet.create("beef")
    assert found(queries, "beef") == named
    stop(fleet, named)
    assert found(queries, "beef") == C
    assert found(queries, "sb_beef") == C


def test_anothers_sandbox_answers_as_an_unknown_one(fleet: Fleet, queries: SandboxQueries) -> None:
    fleet.create("secret", sandbox_id=C)

    def answer(reference: str, principal: Principal) -> tuple[type[NexusError], str, str]:
        with pytest.raises(NexusError) as caught:
            queries.by_reference(reference, principal)
        return type(caught.value), caught.value.message.replace(reference, "…"), caught.value.hint

    for principal in (BOB, STRANGER, Principal("chief", tenant_id="elsewhere", is_admin=True)):
        for theirs, unknown in ((C, A), ("beef1", "abcd1"), ("sb_beef1", "sb_abcd1"), ("secret", "nobody")):
            assert answer(theirs, principal) == answer(unknown, principal)


def test_anothers_ids_do_not_make_mine_ambiguous(fleet: Fleet, queries: SandboxQueries) -> None:
    fleet.create("mine", sandbox_id=A)
    fleet.create("theirs", sandbox_id=B, user_id="bob")
    assert found(queries, "abcd") == A
    assert found(queries, "abcd", BOB) == B


def test_an_admin_means_its_own_first(fleet: Fleet, queries: SandboxQueries) -> None:
    adas = fleet.create("job")
    assert found(queries, "job", CHIEF) == adas
    bobs = fleet.create("job", user_id="bob")
    with pytest.raises(AmbiguousReference) as caught:
        found(queries, "job", CHIEF)
    assert set(caught.value.details["candidates"]) == {adas, bobs}
    for _ in range(4):
        fleet.create("job", user_id=f"user-{_}")
    chiefs = fleet.create("job", user_id="chief")
    fleet.create("job", user_id="dora")
    for number in range(4):
        fleet.create("job", user_id=f"late-{number}")
    assert found(queries, "job", CHIEF) == chiefs
    assert found(queries, adas, CHIEF) == adas
    assert found(queries, bobs, system_principal()) == bobs


# --- the installation's own work -------------------------------------------------------------------------------------
def test_what_is_due(fleet: Fleet, queries: SandboxQueries) -> None:
    creating, active, running = fleet.create("a"), fleet.create("b"), fleet.create("c")
    fleet.tell(active, started(expires=10))
    fleet.tell(running, started(expires=10), run_started(lease=5))
    gone = fleet.create("d")
    stop(fleet, gone)
    assert queries.due(at(2.9)) == []
    assert queries.due(at(3)) == [creating]
    assert queries.due(at(60)) == [creating, running, active]
    assert queries.due(at(60), limit=2) == [creating, running]
    assert set(queries.in_flight()) == {creating, running}
    assert set(queries.live()) == {creating, active, running}


def test_providers_are_those_that_ever_were_asked(fleet: Fleet, queries: SandboxQueries) -> None:
    assert queries.providers() == []
    fleet.create("a", provider="local")
    stop(fleet, fleet.create("b", provider="docker"))
    assert queries.providers() == ["docker", "local"]


def test_get_is_for_whoever_authorizes(fleet: Fleet, queries: SandboxQueries) -> None:
    sandbox_id = fleet.create("a", user_id="bob")
    view = queries.get(sandbox_id)
    assert view is not None
    assert (view.user_id, view.stop_reason) == ("bob", None)
    stop(fleet, sandbox_id)
    view = queries.get(sandbox_id)
    assert view is not None
    assert view.stop_reason is StopReason.USER
    assert queries.get("sb_unknown") is None
