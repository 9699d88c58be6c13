"""`nexus audit`: why things are as they are, and proof that their history was not touched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from nexus.cli.lazy import LazyGroup
from nexus.cli.options import common, moment_option, sandbox_argument
from nexus.cli.session import Session, pass_session
from nexus.cli.sources import read_file
from nexus.domain.errors import InvalidInput

if TYPE_CHECKING:
    from nexus.engine.audit.verdict import Verdict

_COMMANDS: Final = {
    "why": ("nexus.cli.audit:why", "Tell why a sandbox is in its state."),
    "log": ("nexus.cli.audit_log:log", "Show who did what, when, and caused by what."),
    "export": ("nexus.cli.audit_log:export", "Write the audit log as JSON Lines, CSV or CloudEvents."),
    "body": ("nexus.cli.bodies:body", "Show kept code and output of a run, held against the log."),
    "erase": ("nexus.cli.bodies:erase", "Erase kept code and output of a sandbox for good."),
    "seal": ("nexus.cli.audit:seal", "Seal what was recorded since the last time."),
    "verify": ("nexus.cli.audit:verify", "Check the log against its seals and checkpoints."),
    "checkpoint": ("nexus.cli.audit:checkpoint", "Sign the sealed log's head, to be kept elsewhere."),
    "key": ("nexus.cli.audit:key", "Make the signing key, or show its public half."),
    "dump": ("nexus.cli.audit:dump", "Write log and seals as JSON Lines, to be verified elsewhere."),
}
_CHECKPOINT_LIMIT: Final = 64 * 1024


@click.group(cls=LazyGroup, lazy=_COMMANDS)
@common
def audit() -> None:
    """Why things are as they are, and proof that nobody touched their history.

    A worker seals the log as it grows; `audit seal` does it at once. Seals find what was edited, removed, inserted,
    moved or cut off. A signed checkpoint that is kept outside finds a store that was rewritten whole, or an older one.
    """


@click.command()
@sandbox_argument
@moment_option
@common
@pass_session
def why(session: Session, sandbox: str, as_of: str | None) -> None:
    """Tell, in sentences with positions, what led to a sandbox's present state."""
    from nexus.engine.history import NOW, Moment
    from nexus.engine.why import explain

    moment = Moment.parse(as_of) if as_of is not None else NOW
    told = explain(session.history.replay(session.principal, sandbox, moment))
    if session.output.json:
        session.output.value(
            {
                "sandbox_id": told.sandbox_id,
                "summary": told.summary,
                "sentences": list(told.sentences),
                "chain": list(told.chain),
                "positions": list(told.positions),
            }
        )
        return
    for line in told.sentences:
        session.output.line(line)
    for line in told.chain:
        session.output.line(f"  {line}")


@click.command()
@common
@pass_session
def seal(session: Session) -> None:
    """Seal what was recorded since the last time. Safe to run at any time, several at once too."""
    from nexus.engine.audit.sealer import PROJECTION, Sealer

    sealed = Sealer(session.store).catch_up()
    upto = session.store.views.position(PROJECTION) or 0
    if session.output.json:
        session.output.value({"sealed": sealed, "upto": upto})
    else:
        session.output.line(f"Sealed {sealed} events; the log is sealed up to position {upto}.")


@click.command()
@click.option("--checkpoint", "files", multiple=True, metavar="FILE", help="Hold it against this one; may be repeated.")
@click.option("--key", "keys", multiple=True, metavar="PUBLIC_KEY", help="Believe only this signer; may be repeated.")
@click.option("--offline", metavar="DUMP", help="Verify a dump instead of the store.")
@common
@pass_session
def verify(session: Session, files: tuple[str, ...], keys: tuple[str, ...], offline: str | None) -> int:
    """Check the log against its seals, and the seals against checkpoints. Exits with 7 when anything is wrong.

    Opens the store for reading only, at one moment: it needs no right to write, no provider and no read model.
    """
    from nexus.engine.audit.checkpoints import Checkpoint, public_key
    from nexus.engine.audit.evidence import DumpEvidence, LogEvidence
    from nexus.engine.audit.verifier import verify as verified

    checkpoints = []
    for file in files:
        text = read_file(file, "checkpoint", _CHECKPOINT_LIMIT)
        checkpoints.append(Checkpoint.from_json(text.decode(errors="replace")))
    for text_key in keys:
        public_key(text_key)
    with session.output.progress("Verifying") as told:
        evidence = DumpEvidence(Path(offline)) if offline is not None else LogEvidence(session.reading)
        verdict = verified(
            evidence, checkpoints, keys, told=lambda so_far, all_: told(f"{so_far:,} of {all_:,} events")
        )
    _tell(session, verdict)
    return 0 if verdict.intact else 7


def _tell(session: Session, verdict: Verdict) -> None:
    from nexus.engine.audit.verdict import CANNOT_BE_DETECTED

    output = session.output
    if output.json:
        output.value(
            {
                "intact": verdict.intact,
                "installation": verdict.installation,
                "events": verdict.events,
                "seals": verdict.seals,
                "sealed_upto": verdict.sealed_upto,
                "unsealed": verdict.unsealed,
                "checkpoints": verdict.checkpoints,
                "findings": [
                    {"kind": finding.kind, "position": finding.position, "detail": finding.detail}
                    for finding in verdict.findings
                ],
                "more_findings": verdict.more,
                "renumbered": verdict.renumbered,
                "checked": verdict.checked,
                "cannot_be_detected": list(CANNOT_BE_DETECTED),
            }
        )
        return
    for finding in verdict.findings:
        output.line(f"{finding.kind.replace('_', ' ')} at {finding.position}: {finding.detail}")
    if verdict.more:
        output.line(f"and {verdict.more} more")
    if verdict.renumbered:
        output.line(f"{verdict.renumbered} event(s) have other positions because of it")
    output.line(verdict.summary)
    for told in verdict.checked:
        output.line(f"  {told}")
    for what in CANNOT_BE_DETECTED:
        output.hint(f"Cannot be detected: {what}.")


@click.command()
@click.option("--output", "-o", "target", metavar="FILE", help="Write it to this new file instead of stdout.")
@common
@pass_session
def checkpoint(session: Session, target: str | None) -> None:
    """Seal the log and sign its head. Keep what this prints outside the database: a file, a mail, a notary."""
    from nexus.domain.values import to_text
    from nexus.engine.audit.checkpoints import SigningKey
    from nexus.engine.audit.sealer import PROJECTION, Sealer, head_at

    signing = SigningKey.load(_key_path(session))
    store = session.store
    Sealer(store).catch_up()
    position = store.views.position(PROJECTION) or 0
    chain, count = head_at(store, position)
    text = signing.sign(store.installation, position, count, chain, to_text(store.now())).to_json()
    if target is None:
        sys.stdout.write(text)
        return
    try:
        with Path(target).open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InvalidInput(f"The checkpoint cannot be written to {target}: {error.strerror}", field="output") from None
    session.output.hint(f"Keep {target} outside the database.")


@click.command()
@click.argument("action", type=click.Choice(["make", "show"]), default="show")
@common
@pass_session
def key(session: Session, action: str) -> None:
    """Make the key that signs checkpoints, or show its public half for those who verify."""
    from nexus.engine.audit.checkpoints import SigningKey

    path = _key_path(session)
    signing = SigningKey.make(path) if action == "make" else SigningKey.load(path)
    if session.output.json:
        session.output.value({"public_key": signing.public, "file": str(path)})
    else:
        session.output.line(signing.public)
        session.output.hint(f"The private half is in {path}; only its owner may read it. Keep a copy of it safe.")


@click.command()
@common
@pass_session
def dump(session: Session) -> None:
    """Write log and seals to stdout as JSON Lines; `audit verify --offline` verifies them anywhere."""
    from nexus.engine.audit.evidence import LogEvidence, dump_lines

    for line in dump_lines(LogEvidence(session.reading)):
        sys.stdout.write(line + "\n")


def _key_path(session: Session) -> Path:
    path: Path = session.settings.data_dir / "keys" / "audit.pem"
    return path
