"""`python -m jaxmeta`, the same as `jaxmeta`."""

import sys

from jaxmeta.cli import main

if __name__ == "__main__":
    sys.exit(main())
