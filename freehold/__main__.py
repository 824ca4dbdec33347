"""`python -m freehold` is the `freehold` command."""

import sys

from freehold.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
