"""`python -m twostage_pipelines`: the form that torchrun needs, which takes a bare command name for a script path."""

import sys

from .cli.main import main

sys.exit(main())
