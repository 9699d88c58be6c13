"""Names and idempotency keys: streams of their own, derived from whose they are."""

from __future__ import annotations

from itertools import product
from uuid import UUID

import pytest

from nexus.domain import ids
from nexus.domain.errors import IdempotencyMismatch
from nexus.domain.events import KeyClaimed
from nexus.domain.names import fingerprint, key_stream, name_stream, same_request
from nexus.domain.sandbox import sandbox_id_of
from nexus.domain.validation import is_sandbox_id


def test_the_same_claim_is_the_same_stream_for_ever() -> None:
    """These are stored: a change would free every name and forget every key."""
    assert name_stream("default", "ann", "data-analysis") == "name-4449d48c3e835c1499eed38ebb281033"
    assert key_stream("default", "ann", "k-1") == "key-15451c86a9665e5c980a647d1eb596ed"


def test_different_claims_never_share_a_stream() -> None:
    parts = ("a", "b", "ab", "", 'a","b', "a\x00b", "\u00e9", "e\u0301")
    claims = list(product(parts, repeat=3))
    streams = {name_stream(*claim) for claim in claims} | {key_stream(*claim) for claim in claims}
    assert len(streams) == 2 * len(claims)
    assert not any(sandbox_id_of(stream) for stream in streams)


def test_a_fingerprint_looks_at_the_parameters_and_not_at_their_order() -> None:
    assert fingerprint({"name": "a", "ttl": 10}) == fingerprint({"ttl": 10, "name": "a"})
    assert fingerprint({"name": "a", "ttl": 10}) != fingerprint({"name": "a", "ttl": 11})
    assert fingerprint({"name": "a", "ttl": 10}) != fingerprint({"name": "a", "ttl": "10"})


def test_a_key_stands_for_its_request_only() -> None:
    claim = KeyClaimed(sandbox_id="sb_1", fingerprint="f1")
    assert same_request(claim, "f1", "k-1") == "sb_1"
    with pytest.raises(IdempotencyMismatch, match="k-1") as refusal:
        same_request(claim, "f2", "k-1")
    assert refusal.value.details == {"key": "k-1", "sandbox_id": "sb_1"}


def test_ids_have_one_form() -> None:
    random = UUID(int=0xABC)
    assert ids.sandbox_id(random) == "sb_" + "0" * 29 + "abc"
    assert ids.execution_id(random) == "ex_" + "0" * 29 + "abc"
    assert is_sandbox_id(ids.sandbox_id(random))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sb_",
        "sb_" + "0" * 31,
        "sb_" + "0" * 33,
        "sb_" + "A" * 32,
        "SB_" + "0" * 32,
        "sb_" + "0" * 32 + "\n",
        " sb_" + "0" * 32,
        "sb_" + str(UUID(int=1)),
        "sb_" + "\u0660" * 32,
    ],
)
def test_other_forms_of_an_id_are_not_an_id(text: str) -> None:
    assert not is_sandbox_id(text)
