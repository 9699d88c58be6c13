"""`FakePoolProvider`: the fake provider with the optional protocol of the warm pool."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from nexus.domain.errors import ProviderGone
from nexus.domain.provider import Limits, NetworkPolicy, Observed, Ref, SandboxSpec, Template
from nexus.domain.warm_pool import Kind, MemberSpec, Pooled
from nexus.testing.fake import FakeProvider
from nexus.testing.records import FakeResource


class FakePoolProvider(FakeProvider):
    """Members are resources without a sandbox in the same cloud, and are hit by its faults in the same way."""

    image = "1"
    """What templates make: a test changes it as a rebuilt image would."""

    def kind(self, template: Template, limits: Limits, network: NetworkPolicy) -> Kind | None:
        with self._call("kind"):
            told = json.dumps([template.name, self.image, asdict(limits), network])
            return Kind("cloud", hashlib.sha256(told.encode()).hexdigest()[:12])

    def prepare(self, spec: MemberSpec) -> Ref:
        with self._call("prepare", sandbox_id=spec.member_id) as fault, self.cloud.exclusively():
            found = self._members(spec.installation, spec.member_id)
            if found:
                return self._ref(found[0])
            made = FakeResource(
                id=self.cloud.new_id(),
                sandbox_id="",
                installation=spec.installation,
                generation=1,
                condition="running",
                created_at=self.cloud.clock.now(),
                expires_at=self._deadline(spec.expires_at),
                half_made=fault is not None and fault.when == "half",
                network=spec.network,
                template=spec.template.name,
                member_id=spec.member_id,
            )
            self.cloud.put(made)
            return self._ref(made)

    def adopt(self, spec: SandboxSpec, ref: Ref) -> Observed:
        with self._call("adopt", ref), self.cloud.exclusively():
            resource = self._running(ref)
            if resource.sandbox_id not in ("", spec.sandbox_id):
                raise ProviderGone(f"It became {resource.sandbox_id}")
            resource = replace(
                resource,
                sandbox_id=spec.sandbox_id,
                generation=spec.generation,
                expires_at=self._deadline(spec.expires_at),
                name=spec.name,
                env={**spec.template.env, **spec.env},
                labels=dict(spec.labels),
            )
            self.cloud.put(resource)
            return self._observed(resource)

    def pooled(self, installation: str) -> Sequence[Pooled]:
        with self._call("pooled"):
            return [Pooled(r.member_id, r.condition, r.created_at) for r in self._members(installation)]

    def withdraw(self, member_id: str, installation: str) -> bool:
        with self._call("withdraw", sandbox_id=member_id), self.cloud.exclusively():
            doomed = self._members(installation, member_id)
            for resource in doomed:
                self.cloud.remove(resource)
            return bool(doomed)

    def _members(self, installation: str, member_id: str = "") -> list[FakeResource]:
        return [
            r
            for r in self.cloud.resources()
            if r.installation == installation and r.member_id and not r.sandbox_id and member_id in ("", r.member_id)
        ]
