"""`python -m tgi`: the command `tgi`."""

import sys

from tgi.commands.entry import main

if __name__ == "__main__":
    sys.exit(main())
