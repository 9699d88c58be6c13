"""Contract: pause and resume keep what the capabilities declare."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nexus.domain.errors import ProviderNotRunning, ProviderUnsupported
from nexus.domain.provider import Observed, Provider, Ref
from nexus.testing.provider_contract.base import BEATING, ContractBase, MakeSpec, later


class PauseContract(ContractBase):
    def can_pause(self, provider: Provider, sandbox: Observed) -> bool:
        """False after checking that pausing, where it is not declared, is refused and harms nothing."""
        if provider.capabilities.pause != "none":
            return True
        with pytest.raises(ProviderUnsupported):
            provider.pause(sandbox.ref, lambda _ref: None)
        assert provider.inspect(sandbox.ref).condition == "running"
        return False

    def test_pause_and_resume(self, provider: Provider, other: Provider, make_spec: MakeSpec) -> None:
        spec = make_spec()
        sandbox = provider.ensure(spec)
        if not self.can_pause(provider, sandbox):
            return
        assert self.execute(provider, sandbox.ref, "mkdir d; echo kept > d/file").exit_code == 0
        saved: list[Ref] = []
        paused = provider.pause(sandbox.ref, saved.append)
        assert saved
        assert saved[-1] == paused
        assert (paused == sandbox.ref) is provider.capabilities.ref_survives_pause
        assert other.inspect(paused).condition == "paused"
        assert other.inspect(paused).sandbox_id == spec.sandbox_id
        if paused != sandbox.ref:
            assert other.inspect(sandbox.ref).condition == "gone"

        again = spec if provider.capabilities.ref_survives_pause else replace(spec, generation=2)
        awake = other.resume(replace(again, expires_at=later(600)), paused)
        assert (awake.condition, awake.sandbox_id) == ("running", spec.sandbox_id)
        assert (awake.ref == paused) is provider.capabilities.ref_survives_pause
        assert provider.inspect(awake.ref).condition == "running"
        assert self.execute(provider, awake.ref, "cat d/file").stdout == b"kept\n"

    def test_pausing_twice_and_resuming_twice_are_fine(self, provider: Provider, make_spec: MakeSpec) -> None:
        spec = make_spec()
        sandbox = provider.ensure(spec)
        if not self.can_pause(provider, sandbox):
            return
        paused = provider.pause(sandbox.ref, lambda _ref: None)
        assert provider.pause(paused, lambda _ref: None) == paused
        again = spec if provider.capabilities.ref_survives_pause else replace(spec, generation=2)
        awake = provider.resume(again, paused)
        assert provider.resume(again, paused).ref == awake.ref
        assert provider.resume(again, awake.ref).ref == awake.ref
        assert provider.inspect(awake.ref).condition == "running"

    def test_the_new_ref_is_saved_before_anything_is_lost(self, provider: Provider, make_spec: MakeSpec) -> None:
        spec = make_spec()
        sandbox = provider.ensure(spec)
        if not self.can_pause(provider, sandbox):
            return
        self.execute(provider, sandbox.ref, "echo kept > file")
        saved: list[Ref] = []

        def cannot_save(ref: Ref) -> None:
            saved.append(ref)
            raise OSError("the store is down")

        with pytest.raises(OSError, match="the store is down"):
            provider.pause(sandbox.ref, cannot_save)
        assert provider.inspect(saved[0]).condition != "gone", "what is to be saved is durable by then"
        left = provider.inspect(sandbox.ref)
        assert left.condition != "gone", "nobody knows the new ref: the old one must still stand"
        paused = provider.pause(sandbox.ref, lambda _ref: None)
        again = spec if provider.capabilities.ref_survives_pause else replace(spec, generation=2)
        awake = provider.resume(again, paused)
        assert self.execute(provider, awake.ref, "cat file").stdout == b"kept\n"

    def test_memory_survives_where_that_is_declared(self, provider: Provider, make_spec: MakeSpec) -> None:
        spec = make_spec()
        sandbox = provider.ensure(spec)
        if not self.can_pause(provider, sandbox):
            return
        self.execute(provider, sandbox.ref, f"setsid bash -c '{BEATING}' </dev/null >/dev/null 2>&1 &")
        outlives_its_run = self.is_beating(provider, sandbox.ref)
        paused = provider.pause(sandbox.ref, lambda _ref: None)
        again = spec if provider.capabilities.ref_survives_pause else replace(spec, generation=2)
        awake = provider.resume(again, paused)
        if provider.capabilities.pause == "memory":
            assert self.is_beating(provider, awake.ref) is outlives_its_run
            assert awake.incarnation == sandbox.incarnation
        else:
            self.assert_still(provider, awake.ref)

    def test_a_paused_sandbox_runs_nothing(self, provider: Provider, sandbox: Observed) -> None:
        if not self.can_pause(provider, sandbox):
            return
        paused = provider.pause(sandbox.ref, lambda _ref: None)
        with pytest.raises(ProviderNotRunning):
            self.execute(provider, paused, "echo")
        assert provider.inspect(paused).condition == "paused", "a refused run wakes nobody"

    def test_paused_ones_are_listed_as_declared(
        self, provider: Provider, other: Provider, sandbox: Observed, installation: str
    ) -> None:
        if not self.can_pause(provider, sandbox):
            return
        paused = provider.pause(sandbox.ref, lambda _ref: None)
        listed = [paused] if provider.capabilities.lists_paused else []
        assert [seen.ref for seen in other.find(sandbox.sandbox_id, installation)] == listed
        assert [seen.ref for seen in other.owned(installation)] == listed
        if listed:
            assert next(other.owned(installation)).condition == "paused"

    def test_a_paused_sandbox_can_be_destroyed(self, provider: Provider, other: Provider, sandbox: Observed) -> None:
        if not self.can_pause(provider, sandbox):
            return
        paused = provider.pause(sandbox.ref, lambda _ref: None)
        assert other.destroy(paused) is True
        assert provider.inspect(paused).condition == "gone"
        assert provider.destroy(paused) is False

    def test_a_paused_sandbox_is_adopted_not_doubled(
        self, provider: Provider, other: Provider, make_spec: MakeSpec
    ) -> None:
        spec = make_spec()
        sandbox = provider.ensure(spec)
        if not self.can_pause(provider, sandbox) or not provider.capabilities.ref_survives_pause:
            return
        paused = provider.pause(sandbox.ref, lambda _ref: None)
        assert other.ensure(spec).ref == paused
        assert len(other.find(spec.sandbox_id, spec.installation)) == 1
