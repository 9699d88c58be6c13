"""The e2b provider: E2B's cloud through its own SDK, which is imported when the first call needs it.

Everything that E2B does not promise by itself, such as time-outs that kill all and output that ends, is kept by a small
program inside the sandbox, `guest.pl`. Nothing in here may decide a state, or be imported by another provider.
"""

from nexus.adapters.providers.e2b.provider import CAPABILITIES, E2BProvider

__all__ = ["CAPABILITIES", "E2BProvider"]
