"""Sealing of bodies: AES-256-GCM under a data key per sandbox, which a master key wraps.

The master key stays in a setting or in a file that only its owner may read, never in the database: whoever has the
database alone reads nothing, and a data key that is gone takes all that it sealed with it. What a ciphertext belongs
to is authenticated with it, so that one cannot stand in another's place.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nexus.domain.errors import ConfigurationError, VerificationFailed

_KEY: Final = 32
_NONCE: Final = 12
"""Random, 96 bits, for at most 2**32 messages of a key (NIST SP 800-38D, 8.3); a sandbox has three for each run."""
_HOW: Final = "Make one with `openssl rand -base64 32`."


class DataKey:
    """Seals and opens what belongs to one sandbox."""

    def __init__(self, key_id: str, key: bytes) -> None:
        self.key_id = key_id
        self._cipher = AESGCM(key)

    def seal(self, plain: bytes, about: Sequence[str]) -> bytes:
        """Ciphertext that opens only with the same key and the same words about it."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, plain, _bound("body", about))

    def open(self, sealed: bytes, about: Sequence[str]) -> bytes:
        """Raises `VerificationFailed` for what was changed, or sealed about something else."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound("body", about))
        except (InvalidTag, ValueError):
            raise VerificationFailed("It was changed since it was stored, or belongs to something else") from None


class MasterKeys:
    """The first wraps new data keys, the others open those that were wrapped before: that is how a key is replaced."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {_name(key): AESGCM(key) for key in keys}
        self.name = _name(keys[0])
        """Tells keys apart and gives nothing away."""

    @classmethod
    def from_text(cls, text: str, origin: str) -> MasterKeys:
        """Keys of 32 bytes in base64, with white space between them. The error names the origin, never the text."""
        try:
            keys = [base64.b64decode(word, validate=True) for word in text.split()]
        except ValueError:
            keys = []
        if not keys or any(len(key) != _KEY for key in keys):
            raise ConfigurationError(f"{origin} holds no key of 32 bytes in base64", hint=_HOW)
        return cls(keys)

    @classmethod
    def load(cls, path: Path, *, make: bool) -> MasterKeys:
        """From a file; `make` lets one be made where there is none. Raises `ConfigurationError`."""
        try:
            try:
                text = path.read_text(encoding="ascii")
            except FileNotFoundError:
                if not make:
                    raise ConfigurationError(
                        f"There is no key for captured code and output at {path}",
                        hint=f"Set NEXUS_CAPTURE_KEY, the same on every machine, or put the file there. {_HOW}",
                    ) from None
                text = _made(path)
        except (OSError, UnicodeDecodeError) as error:
            said = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigurationError(f"The key file {path} cannot be used: {said}") from None
        return cls.from_text(text, f"The key file {path}")

    def new(self, key_id: str, about: Sequence[str]) -> tuple[DataKey, bytes]:
        """A data key, and what of it may be stored."""
        key, nonce = os.urandom(_KEY), os.urandom(_NONCE)
        return DataKey(key_id, key), nonce + self._ciphers[self.name].encrypt(nonce, key, _bound("key", about))

    def unwrap(self, key_id: str, wrapped_by: str, wrapped: bytes, about: Sequence[str]) -> DataKey:
        """Raises `ConfigurationError` when the master key is another one, `VerificationFailed` for what was changed."""
        cipher = self._ciphers.get(wrapped_by)
        if cipher is None:
            raise ConfigurationError(
                f"This was sealed under master key {wrapped_by}; the settings have {', '.join(self._ciphers)}",
                hint="Add the older key behind the present one in NEXUS_CAPTURE_KEY or in the key file.",
            )
        try:
            return DataKey(key_id, cipher.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _bound("key", about)))
        except (InvalidTag, ValueError):
            raise VerificationFailed("The data key was changed since it was stored") from None


def _name(key: bytes) -> str:
    return hashlib.sha256(b"nexus-master-key/1\0" + key).hexdigest()[:16]


def _bound(what: str, about: Sequence[str]) -> bytes:
    """What a ciphertext is about, so written that no two different sequences are the same bytes."""
    return "\0".join((f"nexus-{what}/1", *about)).encode()


def _made(path: Path) -> str:
    """A new key in its file. Complete from the first moment on, and the same for all who begin at once."""
    text = base64.b64encode(os.urandom(_KEY)).decode() + "\n"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return path.read_text(encoding="ascii")
    finally:
        aside.unlink()
    return text
