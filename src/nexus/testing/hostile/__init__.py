"""Programs that try to get out, take everything or never end, as data, and the suite that runs them against a provider.

A program says `ESCAPED: …` when it got what it must not get, and `held` when it tried everything and did not. Nothing
provider-specific comes in here: point `HostileSuite` at your own provider.
"""

from nexus.testing.hostile import kernel, output, processes, prying, resources
from nexus.testing.hostile.program import Hostile, judge

PROGRAMS: tuple[Hostile, ...] = (
    *processes.PROGRAMS,
    *resources.PROGRAMS,
    *output.PROGRAMS,
    *prying.PROGRAMS,
    *kernel.PROGRAMS,
)

__all__ = ["PROGRAMS", "Hostile", "judge"]
