"""The entry point of ``python -m torchlasso`` and ``torchrun -m torchlasso``."""

import sys
from pathlib import Path

if sys.path[0] in ("", str(Path.cwd())):  # added by -m; without it, no file in the current folder can shadow a module
    del sys.path[0]

from torchlasso.cli.main import main

main()
