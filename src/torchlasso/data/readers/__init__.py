"""One file per reader; each registers itself when it is imported, and all of this folder are."""

from torchlasso._core.specs import import_modules

import_modules(__name__, __path__)
