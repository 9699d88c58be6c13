"""Providers that each break one promise, and the tests of the contract that have to notice.

Not collected by itself: `test_planted_faults.py` runs it and wants failures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import ClassVar

import pytest

from nexus.domain.errors import ProviderError, ProviderGone, ProviderNotRunning
from nexus.domain.provider import Capabilities, ExecutionResult, Observed, OutputSink, Ref, RunRequest, SandboxSpec
from nexus.testing import Behaviour, FakeCloud, FakeProvider, FakeRun, Outcome
from nexus.testing.provider_contract.base import OpenProvider
from tests.contract import interpreters
from tests.contract.interpreters import interpret
from tests.contract.test_fake_provider import FakeContract as _FakeContract

MODAL_LIKE = Capabilities(pause="filesystem", ref_survives_pause=False, lists_paused=False)
FAULTS: dict[str, tuple[str, ...]] = {}


class _Planted(_FakeContract):
    patience = 4.0
    kind: ClassVar[type[FakeProvider]]
    behaviour: ClassVar[Behaviour]

    @pytest.fixture
    def open_provider(self, cloud: FakeCloud) -> OpenProvider:
        self.cloud_in_use = cloud
        behaviour = type(self).behaviour
        return lambda: self.kind(cloud, capabilities=self.capabilities, behaviour=behaviour, refuse_repeats=True)


def plant(
    *caught_by: str, behaviour: Behaviour = interpret, capabilities: Capabilities = _FakeContract.capabilities
) -> Callable[[type[FakeProvider]], type[FakeProvider]]:
    """Make a test class of this provider and note which tests are to fail."""

    def register(kind: type[FakeProvider]) -> type[FakeProvider]:
        name = f"Test{kind.__name__}"
        body = {"kind": kind, "behaviour": staticmethod(behaviour), "capabilities": capabilities}
        globals()[name] = type(name, (_Planted,), {**body, "__module__": __name__})
        FAULTS[name] = caught_by
        return kind

    return register


# --- lifecycle -----------------------------------------------------------------------------------------------------
@plant("test_ensure_twice_is_one_sandbox", "test_another_worker_adopts")
class MakesAnewEachTime(FakeProvider):
    def ensure(self, spec: SandboxSpec) -> Observed:
        planted = self.cloud.plant(spec.sandbox_id, spec.installation, expires_at=spec.expires_at)
        return self._observed(planted)


@plant("test_workers_at_once_make_one_sandbox")
class LooksThenMakes(FakeProvider):
    def ensure(self, spec: SandboxSpec) -> Observed:
        if found := self.find(spec.sandbox_id, spec.installation):
            return found[0]
        threading.Event().wait(0.05)
        return self._observed(self.cloud.plant(spec.sandbox_id, spec.installation))


@plant("test_another_generation_is_another_sandbox")
class IgnoresTheGeneration(FakeProvider):
    def ensure(self, spec: SandboxSpec) -> Observed:
        return super().ensure(replace(spec, generation=1))


@plant("test_installations_do_not_touch_each_other")
class FindsAcrossInstallations(FakeProvider):
    def find(self, sandbox_id: str, installation: str) -> Sequence[Observed]:
        return [self._observed(r) for r in self.cloud.resources() if r.sandbox_id == sandbox_id]


@plant("test_installations_do_not_touch_each_other")
class DiscardsAcrossInstallations(FakeProvider):
    def discard(self, sandbox_id: str, installation: str) -> int:
        return self.cloud.vanish(sandbox_id)


@plant("test_owned_lists_all_of_mine_and_only_mine")
class OwnsEverything(FakeProvider):
    def owned(self, installation: str) -> Iterator[Observed]:
        return iter([self._observed(r) for r in self.cloud.resources()])


@plant("test_owned_lists_all_of_mine_and_only_mine")
class ListsOnePage(FakeProvider):
    def owned(self, installation: str) -> Iterator[Observed]:
        return iter(list(super().owned(installation))[:2])


@plant("test_destroy_ends_it_and_twice_is_fine")
class RaisesForTheMissing(FakeProvider):
    def destroy(self, ref: Ref) -> bool:
        if not super().destroy(ref):
            raise ProviderGone
        return True


@plant("test_destroy_ends_it_and_twice_is_fine", "test_discard_by_our_own_id")
class SaysRunningOfTheDead(FakeProvider):
    def inspect(self, ref: Ref) -> Observed:
        return replace(super().inspect(ref), condition="running")


@plant("test_what_is_gone_is_said_to_be_gone")
class CallsTheGonePaused(FakeProvider):
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        try:
            return super().run(ref, request, on_output)
        except ProviderGone as gone:
            raise ProviderNotRunning(gone.message) from gone


@plant("test_a_ref_that_is_not_its_own_is_refused")
class TakesAnyRef(FakeProvider):
    def _id(self, ref: Ref) -> str:
        return ref.data.get("id", "")


@plant("test_extend_never_shortens")
class Shortens(FakeProvider):
    def extend(self, ref: Ref, expires_at: datetime) -> None:
        self.cloud.put(replace(self._there(ref), expires_at=expires_at))


@plant("test_a_run_pushes_the_deadline")
class ForgetsToPush(FakeProvider):
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        return super().run(ref, replace(request, keep_until=None), on_output)


@plant("test_a_ref_holds_no_secret")
class PutsTheEnvironmentIntoTheRef(FakeProvider):
    def _observed(self, resource: object) -> Observed:
        seen = super()._observed(resource)  # type: ignore[arg-type]
        env = resource.env  # type: ignore[attr-defined]
        return replace(seen, ref=replace(seen.ref, data={**seen.ref.data, **env}))


# --- runs ----------------------------------------------------------------------------------------------------------
def _changed(change: Callable[[ExecutionResult], ExecutionResult]) -> type[FakeProvider]:
    class Changed(FakeProvider):
        def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
            return change(super().run(ref, request, on_output))

    return Changed


@plant("test_streams_and_exit_code")
class LosesStderr(_changed(lambda r: replace(r, stderr=b"", stderr_bytes=0))):  # type: ignore[misc]
    pass


@plant("test_output_is_bytes_as_written")
class DecodesOutput(_changed(lambda r: replace(r, stdout=r.stdout.decode(errors="replace").encode()))):  # type: ignore[misc]
    pass


@plant("test_a_program_that_dies_of_a_signal")
class NegativeExitCodes(_changed(lambda r: replace(r, exit_code=-r.signal) if r.signal else r)):  # type: ignore[misc]
    pass


@plant("test_exit_codes_of_its_own_are_not_mistaken")
class GuessesSignals(
    _changed(lambda r: replace(r, signal=r.exit_code - 128) if r.exit_code > 128 else r)  # type: ignore[misc]
):
    pass


@plant("test_output_beyond_the_cap_is_counted_and_dropped")
class CountsOnlyWhatItKeeps(_changed(lambda r: replace(r, stdout_bytes=len(r.stdout)))):  # type: ignore[misc]
    pass


@plant("test_output_streams_while_the_program_runs[bash]")
class StreamsAtTheEnd(FakeProvider):
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        result = super().run(ref, request)
        if on_output is not None:
            on_output("stdout", result.stdout)
            on_output("stderr", result.stderr)
        return result


@plant("test_stdin_reaches_the_program", "test_stdin_arrives_byte_for_byte")
class DropsStdin(FakeProvider):
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        return super().run(ref, replace(request, stdin=b""), on_output)


@plant("test_environment")
class LeaksTheEnvironment(FakeProvider):
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        resource = self._running(ref)
        self.cloud.put(replace(resource, env={**resource.env, **request.env}))
        return super().run(ref, request, on_output)


@plant("test_argv_runs_without_a_shell")
class JoinsArgv(FakeProvider):
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        if request.argv:
            request = replace(request, argv=("sh", "-c", " ".join(request.argv)))
        return super().run(ref, request, on_output)


@plant("test_an_execution_runs_at_most_once")
class RunsTwice(FakeProvider):
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        self._refuse_repeats = False
        return super().run(ref, request, on_output)


def _without_reaper(run: FakeRun) -> Outcome:
    """Waits for the pipes to close, and at a time-out kills the program but not what it started."""
    whole, interpreters.REAPER = interpreters.REAPER, interpreters.REAPER.with_name("careless_reaper.py")
    try:
        return interpret(run)
    finally:
        interpreters.REAPER = whole


@plant(
    "test_a_time_out_kills_everything[a daemon]",
    "test_cancel_kills_everything_before_it_returns[a daemon]",
    behaviour=_without_reaper,
)
class KillsOnlyTheLeader(FakeProvider):
    pass


@plant("test_a_time_out_keeps_the_output_so_far[bash]")
class LosesOutputOfTimeOuts(_changed(lambda r: replace(r, stdout=b"", stdout_bytes=0) if r.timed_out else r)):  # type: ignore[misc]
    pass


@plant("test_a_caller_that_raises_kills_the_run")
class SwallowsTheCallersException(FakeProvider):
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        def quietly(stream: object, data: bytes) -> None:
            try:
                on_output(stream, data)  # type: ignore[misc,arg-type]
            except Exception:
                pass

        return super().run(ref, replace(request, timeout=2), quietly if on_output else None)


@plant("test_cancel_kills_everything_before_it_returns[a child]")
class CancelsLater(FakeProvider):
    def cancel(self, ref: Ref, execution_id: str) -> None:
        later = threading.Timer(3, super().cancel, (ref, execution_id))
        later.start()


@plant("test_a_time_out_spares_the_sandbox_and_other_runs")
class TimesOutTheWholeSandbox(FakeProvider):
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        result = super().run(ref, request, on_output)
        if result.timed_out:
            self.cloud.restart(self._there(ref).sandbox_id)
        return result


_one_at_a_time = threading.Lock()


@plant("test_runs_in_one_sandbox_overlap")
class RunsOneAtATime(FakeProvider):
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        with _one_at_a_time:
            return super().run(ref, replace(request, timeout=2), on_output)


# --- pause and files -----------------------------------------------------------------------------------------------
@plant("test_pause_and_resume")
class NeverSaves(FakeProvider):
    def pause(self, ref: Ref, save: Callable[[Ref], None]) -> Ref:
        return super().pause(ref, lambda _ref: None)


@plant("test_the_new_ref_is_saved_before_anything_is_lost", capabilities=MODAL_LIKE)
class SavesTooLate(FakeProvider):
    def pause(self, ref: Ref, save: Callable[[Ref], None]) -> Ref:
        paused = super().pause(ref, lambda _ref: None)
        save(paused)
        return paused


@plant("test_pause_and_resume", capabilities=MODAL_LIKE)
class ResumesEmpty(FakeProvider):
    def resume(self, spec: SandboxSpec, ref: Ref) -> Observed:
        return self.ensure(spec)


@plant("test_a_paused_sandbox_runs_nothing")
class WakesForARun(FakeProvider):
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        self.cloud.resume_behind(ref.data.get("sandbox_id", ""))
        return super().run(ref, request, on_output)


@plant("test_a_paused_sandbox_can_be_destroyed")
class CannotDestroyThePaused(FakeProvider):
    def destroy(self, ref: Ref) -> bool:
        resource = self.cloud.get(self._id(ref))
        return resource is not None and resource.condition == "running" and super().destroy(ref)


@plant("test_paused_ones_are_listed_as_declared")
class HidesThePaused(FakeProvider):
    def _listed(self, resource: object) -> bool:
        return resource.condition != "paused"  # type: ignore[attr-defined,no-any-return]


@plant("test_a_limit_is_kept_when_reading")
class ReadsBeyondTheLimit(FakeProvider):
    def read_file(self, ref: Ref, path: str, *, limit: int) -> Iterator[bytes]:
        return super().read_file(ref, path, limit=1 << 40)


@plant("test_a_limit_is_kept_when_writing")
class ReadsAllBeforeItChecks(FakeProvider):
    def write_file(self, ref: Ref, path: str, chunks: Iterable[bytes], *, limit: int) -> int:
        some = [chunk for chunk, _ in zip(chunks, range(5000), strict=False)]
        return super().write_file(ref, path, some, limit=limit)


@plant("test_the_host_cannot_be_read", "test_the_host_cannot_be_written")
class FollowsLinksOut(FakeProvider):
    def read_file(self, ref: Ref, path: str, *, limit: int) -> Iterator[bytes]:
        home = self.cloud.files.home(self._running(ref).id)
        assert home is not None
        with self._file_errors(path):
            return iter([(home / path).read_bytes()])

    def write_file(self, ref: Ref, path: str, chunks: Iterable[bytes], *, limit: int) -> int:
        home = self.cloud.files.home(self._running(ref).id)
        assert home is not None
        with self._file_errors(path):
            return (home / path).write_bytes(b"".join(chunks))


@plant("test_what_is_missing_is_not_found")
class NamesEveryFileErrorAlike(FakeProvider):
    def read_file(self, ref: Ref, path: str, *, limit: int) -> Iterator[bytes]:
        try:
            return super().read_file(ref, path, limit=limit)
        except LookupError as error:
            raise ProviderError("something went wrong") from error
