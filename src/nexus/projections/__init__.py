"""Read models: what callers see, written from events and never asked before anything is decided.

Nothing here knows a database driver or a provider; `tables`, `inline`, `views` and `queries` need the standard
library alone. Inline models are written in the append's own transaction, the others follow the log by `projector`.
"""

from nexus.projections.tables import TABLES

__all__ = ["TABLES"]
