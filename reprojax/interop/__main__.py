"""Runs `reprojax.interop.cli` for ``python -m reprojax.interop``."""

import sys

from reprojax.interop.cli import main

if __name__ == "__main__":
    sys.exit(main())
