"""Contract: making, finding, seeing and ending sandboxes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from nexus.domain.errors import ProviderGone, ProviderInvalidRequest
from nexus.domain.provider import Finding, Observed, Provider, Ref, SandboxSpec
from nexus.testing.provider_contract.base import ContractBase, MakeSpec, OpenProvider, done, later


class LifecycleContract(ContractBase):
    def test_it_is_a_provider_with_a_name_and_capabilities(self, provider: Provider) -> None:
        assert isinstance(provider, Provider)
        assert provider.name
        assert provider.name == provider.name.lower().strip()
        assert provider.capabilities == provider.capabilities
        assert provider.capabilities.languages
        assert provider.capabilities.network

    def test_ensure_makes_a_running_sandbox(self, provider: Provider, make_spec: MakeSpec) -> None:
        spec = make_spec()
        seen = provider.ensure(spec)
        assert (seen.sandbox_id, seen.generation, seen.condition) == (spec.sandbox_id, 1, "running")
        assert seen.ref.provider == provider.name
        assert provider.inspect(seen.ref).condition == "running"

    def test_a_ref_is_a_value_that_survives_json(self, provider: Provider, other: Provider, sandbox: Observed) -> None:
        again = Ref.from_json(json.loads(json.dumps(sandbox.ref.to_json())))
        assert again == sandbox.ref
        assert other.inspect(again).sandbox_id == sandbox.sandbox_id

    def test_a_ref_holds_no_secret(self, provider: Provider, make_spec: MakeSpec) -> None:
        seen = provider.ensure(make_spec(env={"TOKEN": "canary-7f3a"}))
        assert "canary-7f3a" not in json.dumps(seen.ref.to_json())
        assert "canary-7f3a" not in repr(seen)

    def test_ensure_twice_is_one_sandbox(self, provider: Provider, make_spec: MakeSpec) -> None:
        spec = make_spec()
        first, second = provider.ensure(spec), provider.ensure(spec)
        assert first.ref == second.ref
        assert [seen.ref for seen in provider.find(spec.sandbox_id, spec.installation)] == [first.ref]

    def test_another_worker_adopts(self, provider: Provider, other: Provider, make_spec: MakeSpec) -> None:
        spec = make_spec()
        first = provider.ensure(spec)
        assert other.ensure(spec).ref == first.ref
        assert len(other.find(spec.sandbox_id, spec.installation)) == 1
        assert self.execute(other, first.ref, "echo adopted").stdout == b"adopted\n"

    def test_workers_at_once_make_one_sandbox(
        self, provider: Provider, other: Provider, make_spec: MakeSpec, background: ThreadPoolExecutor
    ) -> None:
        for _ in range(3):
            spec = make_spec()
            together = threading.Barrier(4)

            def ensure(worker: Provider, spec: SandboxSpec = spec, together: threading.Barrier = together) -> Observed:
                together.wait(self.patience)
                return worker.ensure(spec)

            futures = [background.submit(ensure, worker) for worker in (provider, other) * 2]
            refs = {json.dumps(done(f, self.patience).ref.to_json(), sort_keys=True) for f in futures}
            found = provider.find(spec.sandbox_id, spec.installation)
            assert len(found) == 1
            assert refs == {json.dumps(found[0].ref.to_json(), sort_keys=True)}

    def test_another_generation_is_another_sandbox(self, provider: Provider, make_spec: MakeSpec) -> None:
        spec = make_spec()
        first = provider.ensure(spec)
        second = provider.ensure(replace(spec, generation=2))
        assert first.ref != second.ref
        found = provider.find(spec.sandbox_id, spec.installation)
        assert [seen.generation for seen in found] == [1, 2], "oldest first"
        assert provider.ensure(spec).ref == first.ref
        assert provider.discard(spec.sandbox_id, spec.installation) == 2

    def test_nothing_is_found_that_was_not_made(self, provider: Provider, make_spec: MakeSpec) -> None:
        spec = make_spec()
        assert list(provider.find(spec.sandbox_id, spec.installation)) == []
        assert provider.discard(spec.sandbox_id, spec.installation) == 0

    def test_destroy_ends_it_and_twice_is_fine(
        self, provider: Provider, other: Provider, sandbox: Observed, installation: str
    ) -> None:
        assert provider.destroy(sandbox.ref) is True
        assert provider.destroy(sandbox.ref) is False
        assert other.destroy(sandbox.ref) is False
        assert provider.inspect(sandbox.ref).condition == "gone"
        assert provider.inspect(sandbox.ref).sandbox_id == sandbox.sandbox_id
        assert list(provider.find(sandbox.sandbox_id, installation)) == []

    def test_destroy_by_another_worker(self, provider: Provider, other: Provider, sandbox: Observed) -> None:
        assert other.destroy(sandbox.ref) is True
        assert provider.inspect(sandbox.ref).condition == "gone"

    def test_discard_by_our_own_id(self, provider: Provider, sandbox: Observed, installation: str) -> None:
        assert provider.discard(sandbox.sandbox_id, installation) == 1
        assert provider.inspect(sandbox.ref).condition == "gone"
        assert provider.discard(sandbox.sandbox_id, installation) == 0

    def test_owned_lists_all_of_mine_and_only_mine(
        self, provider: Provider, other: Provider, make_spec: MakeSpec, installation: str
    ) -> None:
        mine = [provider.ensure(make_spec()) for _ in range(3)]
        theirs = provider.ensure(make_spec(installation=f"{installation}-next"))
        listed = {seen.sandbox_id: seen for seen in other.owned(installation)}
        assert set(listed) == {seen.sandbox_id for seen in mine}
        assert all(listed[seen.sandbox_id].ref == seen.ref for seen in mine)
        assert [seen.ref for seen in other.owned(f"{installation}-next")] == [theirs.ref]
        provider.destroy(mine[0].ref)
        assert {seen.sandbox_id for seen in other.owned(installation)} == {s.sandbox_id for s in mine[1:]}

    def test_installations_do_not_touch_each_other(
        self, provider: Provider, make_spec: MakeSpec, installation: str
    ) -> None:
        theirs = make_spec(installation=f"{installation}-next")
        seen = provider.ensure(theirs)
        assert list(provider.find(theirs.sandbox_id, installation)) == []
        assert provider.discard(theirs.sandbox_id, installation) == 0
        assert provider.inspect(seen.ref).condition == "running"

    @pytest.mark.parametrize("call", ["run", "extend", "pause", "resume", "read_file", "write_file"])
    def test_what_is_gone_is_said_to_be_gone(
        self, provider: Provider, other: Provider, make_spec: MakeSpec, call: str
    ) -> None:
        spec = make_spec()
        ref = provider.ensure(spec).ref
        provider.destroy(ref)
        if call == "pause" and provider.capabilities.pause == "none":
            return
        if call == "resume" and provider.capabilities.pause == "none":
            return
        if call.endswith("_file") and not provider.capabilities.files:
            return
        for worker in (provider, other):
            with pytest.raises(ProviderGone):
                self.calls(worker, ref, spec)[call]()

    def test_a_cancel_in_what_is_gone_has_nothing_to_do(self, provider: Provider, sandbox: Observed) -> None:
        provider.destroy(sandbox.ref)
        try:
            provider.cancel(sandbox.ref, "ex_unknown")
        except ProviderGone:
            pass

    @pytest.mark.parametrize(
        "call", ["inspect", "run", "cancel", "extend", "pause", "resume", "destroy", "read_file", "write_file"]
    )
    @pytest.mark.parametrize("kind", ["of another provider", "of a newer version", "without its data"])
    def test_a_ref_that_is_not_its_own_is_refused(
        self, provider: Provider, make_spec: MakeSpec, call: str, kind: str
    ) -> None:
        spec = make_spec()
        own = Ref(provider=provider.name, data={"anything": "x"})
        ref = {
            "of another provider": replace(own, provider="somebody-else"),
            "of a newer version": replace(own, version=999),
            "without its data": replace(own, data={}),
        }[kind]
        with pytest.raises(ProviderInvalidRequest):
            self.calls(provider, ref, spec)[call]()

    def calls(self, provider: Provider, ref: Ref, spec: SandboxSpec) -> dict[str, Callable[[], object]]:
        """Every method that takes a ref, by name."""
        return {
            "inspect": lambda: provider.inspect(ref),
            "run": lambda: self.execute(provider, ref, "echo"),
            "cancel": lambda: provider.cancel(ref, "ex_unknown"),
            "extend": lambda: provider.extend(ref, later(3600)),
            "pause": lambda: provider.pause(ref, lambda _ref: None),
            "resume": lambda: provider.resume(spec, ref),
            "destroy": lambda: provider.destroy(ref),
            "read_file": lambda: b"".join(provider.read_file(ref, "a", limit=10)),
            "write_file": lambda: provider.write_file(ref, "a", [b"x"], limit=10),
        }

    def test_extend_never_shortens(self, provider: Provider, sandbox: Observed) -> None:
        far = later(3000)
        provider.extend(sandbox.ref, far)
        provider.extend(sandbox.ref, later(5))
        self.execute(provider, sandbox.ref, "true", keep_until=later(5))
        deadline = self.deadline(provider, sandbox.ref)
        assert deadline is None or abs((deadline - far).total_seconds()) < 5
        assert provider.inspect(sandbox.ref).condition == "running"

    def test_a_run_pushes_the_deadline(self, provider: Provider, sandbox: Observed) -> None:
        far = later(3000)
        self.execute(provider, sandbox.ref, "true", keep_until=far)
        deadline = self.deadline(provider, sandbox.ref)
        assert deadline is None or abs((deadline - far).total_seconds()) < 5

    def test_a_deadline_ends_it_only_where_that_is_declared(self, provider: Provider, make_spec: MakeSpec) -> None:
        seen = provider.ensure(make_spec(ttl=self.ttl_step))
        if provider.capabilities.native_ttl:
            self.until(lambda: provider.inspect(seen.ref).condition == "gone", "the provider ended it")
        else:
            threading.Event().wait(self.ttl_step + 0.5)
            assert provider.inspect(seen.ref).condition == "running"

    def test_a_pushed_deadline_keeps_it(self, provider: Provider, make_spec: MakeSpec) -> None:
        seen = provider.ensure(make_spec(ttl=self.ttl_step))
        provider.extend(seen.ref, later(600))
        threading.Event().wait(self.ttl_step + 0.5)
        assert provider.inspect(seen.ref).condition == "running"

    def test_diagnose_answers(self, provider: Provider) -> None:
        findings = provider.diagnose()
        assert findings
        assert all(isinstance(finding, Finding) for finding in findings)
        assert all(finding.check for finding in findings)

    def test_closing_ends_no_sandbox(self, open_provider: OpenProvider, make_spec: MakeSpec, other: Provider) -> None:
        short_lived = open_provider()
        seen = short_lived.ensure(make_spec())
        short_lived.close()
        short_lived.close()
        assert other.inspect(seen.ref).condition == "running"
        assert self.execute(other, seen.ref, "echo alive").stdout == b"alive\n"
