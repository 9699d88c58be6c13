"""How our sandboxes are named and tagged in Modal, and what a ref holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from nexus.domain.errors import ProviderInvalidRequest
from nexus.domain.provider import Condition, Observed, Ref, SandboxSpec

PROVIDER: Final = "modal"
REF_VERSION: Final = 1

TAG_SANDBOX: Final = "nexus_sandbox"
TAG_INSTALLATION: Final = "nexus_installation"
TAG_GENERATION: Final = "nexus_generation"
TAG_CREATED: Final = "nexus_created"
TAG_ORIGIN: Final = "nexus_origin"


@dataclass(frozen=True, slots=True)
class Handle:
    """What a ref says, in Modal's terms."""

    sandbox_id: str
    """Ours."""
    generation: int
    modal_id: str
    """Modal's id of the sandbox; of a paused one, the sandbox that the snapshot was taken of."""
    image_id: str = ""
    """The snapshot of a paused one."""
    origin: str = ""
    """The snapshot that this one was resumed from: of no use any more once this one is paused or destroyed."""

    @property
    def paused(self) -> bool:
        return bool(self.image_id)

    @property
    def ref(self) -> Ref:
        data = {"sandbox": self.sandbox_id, "generation": str(self.generation), "modal_id": self.modal_id}
        if self.image_id:
            data["image_id"] = self.image_id
        if self.origin:
            data["origin"] = self.origin
        return Ref(PROVIDER, data, REF_VERSION)

    @classmethod
    def of(cls, ref: Ref) -> Handle:
        """Read a ref; `ProviderInvalidRequest` for one that is not ours or from a newer version."""
        if ref.provider != PROVIDER or ref.version != REF_VERSION:
            raise ProviderInvalidRequest(f"A ref of {ref.provider} version {ref.version} means nothing to Modal")
        try:
            return cls(
                sandbox_id=ref.data["sandbox"],
                generation=int(ref.data["generation"]),
                modal_id=ref.data["modal_id"],
                image_id=ref.data.get("image_id", ""),
                origin=ref.data.get("origin", ""),
            )
        except (KeyError, ValueError) as error:
            raise ProviderInvalidRequest("A ref of Modal lacks its data") from error

    def seen(self, condition: Condition, created_at: datetime | None = None, notes: tuple[str, ...] = ()) -> Observed:
        return Observed(
            ref=self.ref,
            sandbox_id=self.sandbox_id,
            condition=condition,
            generation=self.generation,
            incarnation=self.modal_id,  # its processes start once and end with it
            created_at=created_at,
            notes=notes,
        )


def name_of(spec: SandboxSpec) -> str:
    """Unique among what runs in the app: the guard against making one sandbox twice."""
    return f"{spec.sandbox_id}-g{spec.generation}"


def tags_of(spec: SandboxSpec, now: datetime, origin: str = "") -> dict[str, str]:
    tags = {
        TAG_SANDBOX: spec.sandbox_id,
        TAG_INSTALLATION: spec.installation,
        TAG_GENERATION: str(spec.generation),
        TAG_CREATED: str(round(now.timestamp() * 1000)),
    }
    if origin:
        tags[TAG_ORIGIN] = origin
    return tags


def tagged(modal_id: str, tags: Mapping[str, str]) -> tuple[Handle, datetime | None]:
    """Read back what `tags_of` wrote, and when that was. Tags are edited by people: what is odd counts as unset."""
    generation = tags.get(TAG_GENERATION, "")
    created = tags.get(TAG_CREATED, "")
    handle = Handle(
        sandbox_id=tags.get(TAG_SANDBOX, ""),
        generation=int(generation) if generation.isdecimal() else 1,
        modal_id=modal_id,
        origin=tags.get(TAG_ORIGIN, ""),
    )
    return handle, datetime.fromtimestamp(int(created) / 1000, UTC) if created.isdecimal() else None
