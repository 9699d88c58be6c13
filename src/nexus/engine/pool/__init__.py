"""The warm pool: what keeps its members in number, gives them to sandboxes, and accounts for each in the log.

How a member is made and becomes a sandbox is the provider's (`nexus.domain.provider.WarmPool`) and never comes in.
"""

from nexus.engine.pool.pool import Pool, PoolStatus

__all__ = ["Pool", "PoolStatus"]
