"""``python -m torchlasso``, and so ``torchrun -m torchlasso``."""

from torchlasso.cli.main import main

main()
