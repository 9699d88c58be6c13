"""The verifiable audit log: sealing the events, checking them against their seals, and signed checkpoints.

Nothing here decides about sandboxes or asks a provider; verifying needs no write access.
"""
