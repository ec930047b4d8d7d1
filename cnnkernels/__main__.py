"""`python -m cnnkernels` is the command `cnnkernels`."""

import sys

from .cli.main import main

sys.exit(main())
