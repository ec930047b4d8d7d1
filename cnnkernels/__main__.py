"""`python -m cnnkernels` is the command `cnnkernels`."""

import sys

from .cli import main

sys.exit(main())
