"""The Docker provider: a sandbox is a container, reached through the agent in it, on any Docker Engine.

Everything that knows the engine's API lives here. What a sandbox's state means, and what runs inside, never come in.
"""

from nexus.adapters.providers.docker.images import build_image
from nexus.adapters.providers.docker.provider import CAPABILITIES, DockerProvider

__all__ = ["CAPABILITIES", "DockerProvider", "build_image"]
