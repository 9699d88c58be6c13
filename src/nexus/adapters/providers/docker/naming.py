"""How a container says whose it is: its name and its labels, made and read in this one place.

The name is the lock: an engine gives it to one container only, so two that create the same sandbox meet there. It is
also the truth, because a label cannot change once a container exists and a container of the warm pool is made before
its sandbox is known. Labels are how an installation's containers are listed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

LABEL_INSTALLATION = "nexus.installation"
LABEL_SANDBOX = "nexus.sandbox"
LABEL_GENERATION = "nexus.generation"
LABEL_MEMBER = "nexus.member"
"""Which member of the warm pool it was made as; it may have become a sandbox since."""
LABEL_MODE = "nexus.mode"
"""`agent`, or `bare` for an image without Python."""
LABEL_FOLDER = "nexus.folder"
"""Where the agent's socket is on the machine that made the container; "" when it is inside alone."""
LABEL_UID = "nexus.uid"
"""User id of the code."""
LABEL_SECRETS = "nexus.secrets"
"""How many values of environment variables were handed in: they are lost when the container is restarted."""

_NAME = re.compile(r"nexus-(?P<site>[0-9a-f]{12})-(?P<hex>[0-9a-f]{32})-(?P<generation>[0-9]+)")
_POOL = re.compile(r"nexus-(?P<site>[0-9a-f]{12})-pool-(?P<hex>[0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Owner:
    """Which sandbox a container belongs to; a member of the warm pool belongs to none yet."""

    sandbox_id: str
    generation: int
    member_id: str = ""


def site(installation: str) -> str:
    """The installation in a form that fits into a container's name, whatever characters its id has."""
    return hashlib.sha256(installation.encode()).hexdigest()[:12]


def container_name(installation: str, sandbox_id: str, generation: int) -> str:
    return f"nexus-{site(installation)}-{sandbox_id.removeprefix('sb_')}-{generation}"


def folder_name(installation: str, resource_id: str) -> str:
    """What the names of a sandbox's or a member's folders begin with: the agents' sockets lie there."""
    return f"{site(installation)}-{resource_id.removeprefix('sb_')}"


def member_name(installation: str, member_id: str) -> str:
    return f"nexus-{site(installation)}-pool-{member_id.removeprefix('pm_')}"


def name_filter(installation: str, sandbox_id: str) -> str:
    """A regular expression for the engine's list: all generations of one sandbox."""
    return f"^/?nexus-{site(installation)}-{re.escape(sandbox_id.removeprefix('sb_'))}-[0-9]+$"


def owner_of(name: str, labels: Mapping[str, str]) -> Owner | None:
    """Whose container this is; None when it is none of ours. Someone may have renamed it: then the labels tell."""
    name = name.lstrip("/")
    if found := _NAME.fullmatch(name):
        return Owner(f"sb_{found['hex']}", int(found["generation"]))
    if found := _POOL.fullmatch(name):
        return Owner("", 0, member_id=f"pm_{found['hex']}")
    sandbox_id, generation = labels.get(LABEL_SANDBOX, ""), labels.get(LABEL_GENERATION, "")
    if sandbox_id and generation.isdecimal():
        return Owner(sandbox_id, int(generation))
    if labels.get(LABEL_MEMBER):
        return Owner("", 0, member_id=labels[LABEL_MEMBER])
    return None
