"""Modal: sandboxes in Modal's cloud, through its own SDK, which is imported when it is first needed.

Everything that knows Modal lives here; nothing of what a sandbox may do next, and no other provider, ever does.
"""

from nexus.adapters.providers.modal.provider import CAPABILITIES, ModalProvider

__all__ = ["CAPABILITIES", "ModalProvider"]
