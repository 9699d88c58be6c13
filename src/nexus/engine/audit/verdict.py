"""What a verification says: what was checked, what was found, and what no verification can find."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["edited", "removed", "inserted", "moved", "cut", "rolled_back", "forged_checkpoint", "seals_rewritten"]

CANNOT_BE_DETECTED: Final = (
    "changes to events that were not sealed yet when they were made",
    "a rewritten log whose seals were rewritten with it, where no checkpoint was kept outside",
    "an older store that was put back whole, where no checkpoint was kept outside",
    "untrue events that the program itself wrote",
)
_MOST: Final = 1000
"""Findings that are kept; more are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and the first position that it concerns."""

    kind: Kind
    position: int
    detail: str


@dataclass
class Verdict:
    """What was checked, and what was found."""

    installation: str = ""
    events: int = 0
    sealed_upto: int = 0
    """The last sealed position."""
    seals: int = 0
    unsealed: int = 0
    """Events after the last seal, or with none that can be read: nothing can be said about them."""
    heads: int = 0
    """Stored heads of the chain that it was compared with."""
    checkpoints: int = 0
    trusted_keys: int = 0
    """Public keys that were given; without any, a checkpoint was believed to be signed by who it says."""
    renumbered: int = 0
    """Events in their order at other positions than they were sealed at, because of what else was found."""
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    """Findings beyond those that are listed."""

    @property
    def intact(self) -> bool:
        return not self.findings

    def add(self, kind: Kind, position: int, detail: str) -> None:
        if len(self.findings) < _MOST:
            self.findings.append(Finding(kind, position, detail))
        else:
            self.more += 1

    @property
    def summary(self) -> str:
        """In one line."""
        if self.intact and self.seals == 0:
            return f"Nothing checked: {self.events} events, none of them sealed."
        return (
            f"{'Intact' if self.intact else 'NOT intact'}: {self.events} events, sealed up to position "
            f"{self.sealed_upto}, {self.unsealed} not sealed yet, {self.checkpoints} checkpoint(s)."
        )

    @property
    def checked(self) -> list[str]:
        """In sentences, what the findings, or that there are none, rest on."""
        if self.seals == 0:
            told = ["No event is sealed: nothing was checked. A worker seals, or `nexus audit seal`."]
        else:
            told = [
                f"{self.events - self.unsealed} events, up to position {self.sealed_upto}, each against its seal, "
                f"all columns and the payload.",
                f"The chain of {self.seals} seals, recomputed from the first, against its head after each of "
                f"{self.heads} page(s).",
            ]
        if self.checkpoints == 0:
            told.append("No checkpoint was given: whoever can rewrite log and seals together would not be found.")
        elif self.trusted_keys:
            told.append(
                f"{self.checkpoints} checkpoint(s): the signature against the given keys, the chain against it."
            )
        else:
            told.append(
                f"{self.checkpoints} checkpoint(s): the signature against the key that the checkpoint itself names "
                f"(give --key to know whose it is), the chain against it."
            )
        if self.unsealed:
            told.append(f"Not checked: {self.unsealed} events that have no seal.")
        return told
