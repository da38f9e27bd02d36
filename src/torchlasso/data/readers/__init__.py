"""The readers, one per file. Importing this package imports all files in the folder, and each registers its reader."""

from torchlasso._core.specs import import_modules

import_modules(__name__, __path__)
