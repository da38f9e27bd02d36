"""Trackers of training, one per file. Importing this package imports all files in the folder, which register theirs."""

from torchlasso._core.specs import import_modules
from torchlasso.integrations.trackers.base import Tracked, Tracker, need_tracker, register, tracker_names, tracker_of

__all__ = ["Tracked", "Tracker", "need_tracker", "register", "tracker_names", "tracker_of"]

import_modules(__name__, __path__)
