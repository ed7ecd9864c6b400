"""`python -m lunalog`: the same as the `lunalog` command."""

from __future__ import annotations

import sys

from lunalog.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
