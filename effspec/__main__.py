"""`python -m effspec`: the command `effspec`."""

import sys

from effspec.cli import main

sys.exit(main())
