"""`python -m jaxmeta.cli`, the same as `jaxmeta`."""

import sys

from jaxmeta.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
