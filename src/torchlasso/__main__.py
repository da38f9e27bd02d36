"""``python -m torchlasso``, and so ``torchrun -m torchlasso``."""

import sys
from pathlib import Path

if sys.path[0] in ("", str(Path.cwd())):  # by -m; nothing that lies in the current folder is imported by its name alone
    del sys.path[0]

from torchlasso.cli.main import main

main()
