"""Random tamperings of a sealed log, by somebody who can write the database and has put its triggers out of the way.

Each one happens in a transaction that is rolled back, so that a thousand of them cost seconds and not minutes. What it
returns is what a verifier has to find: the first position that it concerns, and how many findings it makes.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nexus.domain.ports import Scalar
from nexus.domain.sealing import Written
from nexus.engine.audit.canonical import RAW_COLUMNS
from nexus.engine.audit.checkpoints import Checkpoint, SigningKey
from nexus.engine.audit.sealer import PROJECTION, Sealer, head_at
from tests.support.world import ANN, World

_NUMBERS: Final = ("originator_version", "schema_version")
_OPTIONAL: Final = ("agent_id", "causation_id")


class Session(Protocol):
    """A writer's own connection. Marks are `?`."""

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]: ...

    def written(self, after: int, upto: int) -> Iterator[Written]:
        """As the store's own `Reading` has them."""
        ...

    def begin(self) -> None: ...

    def rollback(self) -> None: ...


@dataclass
class SeenFromWithin:
    """The `Reading` of a tamperer's own transaction, which sees what it has not committed."""

    session: Session
    installation: str

    def rows(
        self, statement: str, params: Mapping[str, Scalar] | None = None, *, lenient: bool = False
    ) -> Iterator[Any]:
        for name, value in (params or {}).items():
            statement = statement.replace(f":{name}", str(value))
        return iter(self.session.run(statement))

    def written(self, after: int, upto: int) -> Iterator[Written]:
        return self.session.written(after, upto)

    def again(self) -> None:
        """Nobody else sees it."""

    def same_moment(self) -> bool:
        return True

    def close(self) -> None: ...


@dataclass(frozen=True)
class Done:
    """What a tampering has to look like to a verifier."""

    position: int
    findings: int
    checkpoint: Checkpoint | None = None


def sealed_story(world: World, key: SigningKey) -> Checkpoint:
    """A short history, sealed bit by bit, and a checkpoint of its end."""
    sealer = Sealer(world.store)
    for number in range(2):
        world.engine.create(ANN, f"s{number}", labels={"who": 'quo"ted \\ ünï'})
        sealer.catch_up()
        world.engine.run(ANN, f"s{number}", code="1")
        sealer.catch_up()
    world.engine.stop(ANN, "s1")
    sealer.catch_up()
    position = world.store.views.position(PROJECTION) or 0
    chain, count = head_at(world.store, position)
    return key.sign(world.store.installation, position, count, chain, "2026-01-01T00:00:00+00:00")


class Tamperer:
    """Within a transaction of `session`, which the caller begins and rolls back."""

    def __init__(self, session: Session, checkpoint: Checkpoint, key: SigningKey, seed: str) -> None:
        self._run = session.run
        self._checkpoint = checkpoint
        self._key = key
        self.random = random.Random(seed)
        columns = ", ".join(RAW_COLUMNS)
        self.rows: list[Any] = [tuple(row) for row in session.run(f"SELECT {columns} FROM events ORDER BY position")]
        self.positions: list[int] = [row[0] for row in self.rows]
        self.heads: list[int] = [row[0] for row in session.run("SELECT position FROM seals ORDER BY position")]

    # --- events --------------------------------------------------------------------------------------------------
    def edited(self) -> Done:
        """Change one to three columns of an event, its id or its version perhaps, but not its place."""
        row = self.random.choice(self.rows)
        names = self.random.sample(RAW_COLUMNS[1:], self.random.choice((1, 1, 1, 2, 3)))
        values = [self._other(name, row[RAW_COLUMNS.index(name)]) for name in names]
        settings = ", ".join(f"{name} = ?" for name in names)
        self._run(f"UPDATE events SET {settings} WHERE position = ?", (*values, row[0]))
        return Done(row[0], 1)

    def removed(self) -> Done:
        """Remove one to three events, the last not among them; close the gap perhaps."""
        gone = sorted(self.random.sample(self.positions[:-1], self.random.randint(1, 3)))
        for place in gone:
            self._run("DELETE FROM events WHERE position = ?", (place,))
        if self.random.random() < 0.5:
            left = [place for place in self.positions if place not in gone]
            self._number_anew(dict(zip(left, self.positions, strict=False)))
        return Done(gone[0], len(gone))

    def inserted(self) -> Done:
        """Put a new event between others: into a gap, or where it pushed those after it out of the way."""
        place = self.random.choice(self.positions)
        if place + 1 not in self.positions and place != self.positions[-1] and self.random.random() < 0.5:
            place += 1
        else:
            by = self.random.choice((1, 1, 7))
            self._number_anew({old: old + by for old in self.positions if old >= place})
        row = list(self.random.choice(self.rows))
        row[0], row[1] = place, f"forged-{self.random.random()}"
        row[RAW_COLUMNS.index("originator_version")] += 1000
        self._run(f"INSERT INTO events ({', '.join(RAW_COLUMNS)}) VALUES ({', '.join('?' * len(row))})", row)
        return Done(place, 1)

    def moved(self) -> Done:
        """Exchange two, turn a stretch around, put one elsewhere, perhaps behind the end, or push a tail along."""
        first, last = sorted(self.random.sample(range(len(self.positions)), 2))
        stretch = self.positions[first : last + 1]
        how, findings = self.random.randrange(5), 1
        if how == 0:
            places = {stretch[0]: stretch[-1], stretch[-1]: stretch[0]}
            findings = 1 if len(stretch) == 2 else 2
        elif how == 1:
            places = dict(zip(stretch, reversed(stretch), strict=True))
            findings = len(stretch) - 1
        elif how == 2:
            turn = 1 if self.random.random() < 0.5 else -1
            places = dict(zip(stretch, stretch[turn:] + stretch[:turn], strict=True))
        elif how == 3:
            places = {old: old + 3 for old in self.positions[first:]}
            findings = len(places)
        else:
            places = {stretch[0]: self.positions[-1] + self.random.randint(1, 9)}
        self._number_anew({old: new for old, new in places.items() if old != new})
        return Done(stretch[0], findings)

    def cut(self) -> Done:
        """Cut the tail off."""
        place = self.random.choice(self.positions)
        self._run("DELETE FROM events WHERE position >= ?", (place,))
        return Done(place, 1)

    # --- whole stores and checkpoints ----------------------------------------------------------------------------
    def rolled_back(self) -> Done:
        """Put an older copy of everything back, perhaps one with events that were not sealed yet."""
        head = self.random.choice((0, *self.heads[:-1]))
        newer = [place for place in self.positions if place > head]
        ends = self.random.choice((head, *newer[: self.random.randrange(len(newer))]))
        self._run("DELETE FROM events WHERE position > ?", (ends,))
        self._run("DELETE FROM seals WHERE position > ?", (head,))
        return Done(head, 1)

    def forged_checkpoint(self) -> Done:
        """Change what a checkpoint says, or its signature; or sign what it should say with a key of one's own."""
        changed: dict[str, Any] = dict(asdict(self._checkpoint))
        name = self.random.choice(tuple(changed))
        changed[name] = self._other(name, changed[name])
        forged = Checkpoint(**changed)
        if self.random.random() < 0.3:
            mine = SigningKey(Ed25519PrivateKey.from_private_bytes(self.random.randbytes(32)))
            signed = mine.sign(forged.installation, forged.position, forged.count, b"", forged.made_at)
            forged = replace(signed, public_key=self.random.choice((mine.public, self._key.public)))
        elif name == "signature" and self.random.random() < 0.5:
            forged = replace(forged, signature=base64.b64encode(self.random.randbytes(64)).decode())
        return Done(forged.position, 1, forged)

    # --- how -----------------------------------------------------------------------------------------------------
    def _number_anew(self, places: Mapping[int, int]) -> None:
        for old, new in places.items():
            self._run("UPDATE events SET position = ? WHERE position = ?", (-new, old))
        self._run("UPDATE events SET position = -position WHERE position < 0")

    def _other(self, name: str, old: Any) -> Any:
        """Another value that the column takes."""
        if name in _NUMBERS:
            return old + self.random.randint(1000, 1_000_000)
        if type(old) is int:
            return old + self.random.choice((-1, 1))
        if name in _OPTIONAL and self.random.random() < 0.3:
            return "null" if old is None else None
        if type(old) is bytes:
            return self._other_bytes(old)
        while True:
            new = self._other_text(old or "")
            if new != old:
                return new

    def _other_bytes(self, old: bytes) -> bytes:
        at = self.random.randrange(len(old))
        return self.random.choice(
            (
                old[:at] + bytes([old[at] ^ (1 + self.random.randrange(255))]) + old[at + 1 :],
                old[:at],
                old + b"\0",
                old[:at] + b" " + old[at:],
                b"{}",
            )
        )

    def _other_text(self, old: str) -> str:
        at = self.random.randrange(len(old) + 1)
        more = self.random.choice(("x", "0", '"', "\\", "\\u0041", "\n", "\x1f", "é", "\u2028", '","agent_id":null,"'))
        return self.random.choice((old[:at] + more + old[at:], old[:at] + more + old[at + 1 :], old[:at], old.upper()))


KINDS: Final[dict[str, Callable[[Tamperer], Done]]] = {
    "edited": Tamperer.edited,
    "removed": Tamperer.removed,
    "inserted": Tamperer.inserted,
    "moved": Tamperer.moved,
    "cut": Tamperer.cut,
    "rolled_back": Tamperer.rolled_back,
    "forged_checkpoint": Tamperer.forged_checkpoint,
}
