"""The error tree: drawn as it is, told apart by stable codes, and with the messages that callers know."""

from __future__ import annotations

import re

import pytest

from nexus.domain import decisions, errors
from nexus.domain.errors import NexusError


def in_this_module() -> list[type[NexusError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NexusError)]


def test_the_drawing_at_the_top_is_the_tree() -> None:
    parents: list[str] = []
    drawn: dict[str, str] = {}
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines()[2:]:
        found = re.match(r"(?P<lead>[│ ├└─]*)(?P<names>[A-Z]\w+( · [A-Z]\w+)*)", line)
        if found is None:
            continue
        depth = len(found["lead"]) // 4
        names = found["names"].split(" · ")
        for name in names:
            drawn[name] = parents[depth - 1] if depth else "Exception"
        parents[depth:] = [names[-1]]
    real = {}
    for kind in in_this_module():
        above = [base.__name__ for base in kind.__bases__ if issubclass(base, NexusError)]
        real[kind.__name__] = above[0] if above else "Exception"
    assert drawn == real


@pytest.mark.parametrize("kind", in_this_module(), ids=lambda kind: str(kind.__name__))
def test_every_error_has_a_code_of_its_own_and_says_what_it_is(kind: type[NexusError]) -> None:
    assert kind.__doc__
    everywhere: list[type[NexusError]] = [*in_this_module(), decisions.Superseded]
    same = [other.__name__ for other in everywhere if other.code == kind.code]
    assert same == [kind.__name__]


def test_messages_that_callers_know_word_for_word() -> None:
    assert str(errors.SandboxNotFound("sb_9")) == "Sandbox sb_9 not found"
    assert str(errors.NameTaken(name="n", user_id="u")) == "Sandbox with name 'n' already exists for user u"
    assert str(errors.ExecutionTimedOut(timeout=5)) == "Code execution exceeded 5 second timeout"


def test_facts_become_attributes_and_details() -> None:
    error = errors.SandboxBusy("busy", hint="wait", sandbox_id="sb_1", operation="pause")
    assert (error.message, error.hint) == ("busy", "wait")
    assert error.details == {"sandbox_id": "sb_1", "operation": "pause"}
    assert error.operation == "pause"  # type: ignore[attr-defined]


def test_without_a_message_the_docstring_speaks() -> None:
    assert str(errors.StoreUnavailable()) == "The event store cannot be reached. Nothing was recorded."
    assert str(errors.NotAllowed()) == "You may not do this."


def test_errors_are_what_python_calls_them_too() -> None:
    assert issubclass(errors.InvalidInput, ValueError)
    assert issubclass(errors.NotAllowed, PermissionError)
    assert issubclass(errors.NotFound, LookupError)
    assert issubclass(errors.ExecutionTimedOut, TimeoutError)


def test_provider_errors_say_whether_to_try_again_and_what_may_have_happened() -> None:
    said = {
        kind.__name__: (kind.retryable, kind.effect)
        for kind in in_this_module()
        if issubclass(kind, errors.ProviderError)
    }
    assert said.pop("ProviderOutcomeUnknown") == (True, "unknown")
    assert {name for name, (retryable, _) in said.items() if retryable} == {
        "ProviderRateLimited",
        "ProviderUnavailable",
    }
    assert {effect for _, effect in said.values()} == {"none"}
