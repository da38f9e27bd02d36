"""The sections of a run's page: each is a function of the shown run, and empty if it does not apply."""

from torchlasso._core.specs import import_modules

import_modules(__name__, __path__)  # a new section is one file in this folder
