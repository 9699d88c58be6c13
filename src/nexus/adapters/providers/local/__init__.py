"""The local provider: a bubblewrap sandbox per folder, with the resident agent as its PID 1; no daemon, no database.

What a sandbox is lies in its state folder and in the kernel, so any process can find and operate it. Nothing of the
engine comes in.
"""

from nexus.adapters.providers.local.provider import LocalProvider

__all__ = ["LocalProvider"]
