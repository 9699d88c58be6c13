"""Names and idempotency keys: small aggregates of their own, saved in the same append as the sandbox.

A name's stream is a chain of claims. A claim stands until its sandbox is stopped, and stopped is final, so "the
holder is stopped" can never become untrue again: it is safe to read it first and then claim at the version read. Two
claims at once meet in optimistic concurrency. No release event is needed, and stopping touches one stream only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

from nexus.domain.errors import IdempotencyMismatch
from nexus.domain.events import KeyClaimed

_NAMES = UUID("5b0c4c39-3c1f-4b1c-9a86-0f7a2f0a3e11")
_KEYS = UUID("c2f3b7f4-6d3a-4a58-8a0f-3f6f5c1d9d2e")


def _derived(namespace: UUID, *parts: str) -> str:
    return uuid5(namespace, json.dumps(parts)).hex


def name_stream(tenant_id: str, user_id: str, name: str) -> str:
    """The stream of one user's name."""
    return "name-" + _derived(_NAMES, tenant_id, user_id, name)


def key_stream(tenant_id: str, user_id: str, key: str) -> str:
    """The stream of one user's idempotency key."""
    return "key-" + _derived(_KEYS, tenant_id, user_id, key)


def fingerprint(parameters: Mapping[str, Any]) -> str:
    """A digest of a request's parameters. Values of environment variables go in by their own digest only."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode()).hexdigest()


def same_request(claim: KeyClaimed, wanted: str, key: str) -> str:
    """The sandbox that an idempotency key stands for; raises `IdempotencyMismatch` for other parameters."""
    if claim.fingerprint != wanted:
        raise IdempotencyMismatch(
            f"Idempotency key {key!r} was used with other parameters", key=key, sandbox_id=claim.sandbox_id
        )
    return claim.sandbox_id
