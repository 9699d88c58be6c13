"""Contract: many threads on one provider, in one sandbox and in many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from nexus.domain.provider import Observed, Provider
from nexus.testing.provider_contract.base import ContractBase, MakeSpec, done


class ThreadContract(ContractBase):
    def test_runs_in_one_sandbox_overlap(
        self, provider: Provider, sandbox: Observed, background: ThreadPoolExecutor
    ) -> None:
        # Each waits until it has seen all others: only runs that truly overlap can end.
        code = "touch here-$ME; until [ $(ls here-* | wc -l) = 4 ]; do sleep 0.02; done; echo $ME"
        runs = [background.submit(self.execute, provider, sandbox.ref, code, env={"ME": str(n)}) for n in range(4)]
        assert [done(run, self.patience).stdout for run in runs] == [b"0\n", b"1\n", b"2\n", b"3\n"]

    def test_eight_threads_in_one_sandbox(
        self, provider: Provider, sandbox: Observed, background: ThreadPoolExecutor
    ) -> None:
        def work(n: int) -> list[tuple[bytes, int]]:
            results = [self.execute(provider, sandbox.ref, f"echo {n}-{i}; echo e{n} >&2; exit {n}") for i in range(4)]
            assert all(result.stderr == f"e{n}\n".encode() for result in results)
            return [(result.stdout, result.exit_code) for result in results]

        jobs = [background.submit(work, n) for n in range(8)]
        for n, job in enumerate(jobs):
            assert done(job, 2 * self.patience) == [(f"{n}-{i}\n".encode(), n) for i in range(4)]

    def test_eight_threads_with_a_sandbox_each(
        self, provider: Provider, make_spec: MakeSpec, background: ThreadPoolExecutor, installation: str
    ) -> None:
        specs = [make_spec(env={"ME": str(n)}) for n in range(8)]

        def life(n: int) -> bytes:
            seen = provider.ensure(specs[n])
            out = self.execute(provider, seen.ref, "echo $ME").stdout
            assert provider.inspect(seen.ref).condition == "running"
            assert [f.ref for f in provider.find(specs[n].sandbox_id, installation)] == [seen.ref]
            assert provider.destroy(seen.ref)
            return out

        jobs = [background.submit(life, n) for n in range(8)]
        assert [done(job, 2 * self.patience) for job in jobs] == [f"{n}\n".encode() for n in range(8)]
        assert list(provider.owned(installation)) == []
