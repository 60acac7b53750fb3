"""`python -m synthgrad` is `synthgrad`."""

import sys

from synthgrad.cli import main

if __name__ == "__main__":
    sys.exit(main())
