"""``python -m reprojax.interop``: see `reprojax.interop.cli`."""

import sys

from reprojax.interop.cli import main

if __name__ == "__main__":
    sys.exit(main())
