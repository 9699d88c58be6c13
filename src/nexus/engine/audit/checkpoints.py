"""Checkpoints: the sealed chain's head at a position, signed with Ed25519, to be kept outside the database.

A checkpoint file is JSON. What is signed is its RFC 8785 form without the signature.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from nexus.domain.errors import Conflict, InvalidInput, NotFound
from nexus.domain.validation import shown

FORMAT: Final = "nexus-audit-checkpoint/1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a signer vouches for: after `count` events, the last at `position`, the chain's head was `chain`."""

    installation: str
    position: int
    count: int
    chain: str
    """Hexadecimal."""
    made_at: str
    public_key: str
    """Base64 of the raw 32 bytes."""
    signature: str = ""

    def signed_bytes(self) -> bytes:
        facts = {key: value for key, value in asdict(self).items() if key != "signature"}
        return rfc8785.dumps({"format": FORMAT, **facts})

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Checkpoint:
        """Raises `InvalidInput` for anything that is not a checkpoint; its signature is not looked at."""
        try:
            value = json.loads(text)
            if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
                raise ValueError("not a checkpoint of a known format")
            found = cls(**value)
            _check_types(asdict(found))
        except (ValueError, TypeError, RecursionError):
            raise InvalidInput(
                "This is not a checkpoint file", hint="`nexus audit checkpoint` writes one.", field="checkpoint"
            ) from None
        return found

    def is_authentic(self, public_key: Ed25519PublicKey) -> bool:
        """Whether this key's owner signed exactly this."""
        try:
            public_key.verify(base64.b64decode(self.signature, validate=True), self.signed_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True


def _check_types(facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        wanted = int if name in ("position", "count") else str
        if type(value) is not wanted:
            raise TypeError(name)


class SigningKey:
    """An Ed25519 key in a file that only its owner may read (PEM, PKCS#8, no passphrase)."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def make(cls, path: Path) -> SigningKey:
        """Make a key; raises `Conflict` rather than replace one, for that would orphan its checkpoints."""
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise Conflict(f"There is a signing key at {path}", hint="Move it away first if it is to go.") from None
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
        return cls(key)

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Raises `NotFound` and `InvalidInput`."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except FileNotFoundError:
            raise NotFound(f"There is no signing key at {path}", hint="Run `nexus audit key make`.") from None
        except (OSError, ValueError, TypeError):
            raise InvalidInput(f"The signing key {path} cannot be read", field="key") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidInput(f"The signing key {path} is not an Ed25519 key", field="key")
        return cls(key)

    @property
    def public(self) -> str:
        """The public key: base64 of its raw 32 bytes."""
        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def sign(self, installation: str, position: int, count: int, chain: bytes, made_at: str) -> Checkpoint:
        facts = Checkpoint(installation, position, count, chain.hex(), made_at, self.public)
        signature = base64.b64encode(self._key.sign(facts.signed_bytes())).decode()
        return Checkpoint(installation, position, count, chain.hex(), made_at, self.public, signature)


def public_key(text: str) -> Ed25519PublicKey:
    """A public key as `SigningKey.public` gives it. Raises `InvalidInput`."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError:
        raise InvalidInput(
            f"{shown(text)} is not a public key", hint="It is base64 of 32 bytes.", field="key"
        ) from None
