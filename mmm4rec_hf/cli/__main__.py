"""`python -m mmm4rec_hf.cli`: the same as `mmm4rec`."""

import sys

from . import main

sys.exit(main())
