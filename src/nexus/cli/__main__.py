"""`python -m nexus.cli` is `nexus`."""

import sys

from nexus.cli import main

sys.exit(main())
