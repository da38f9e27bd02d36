"""The command line: ``torchlasso train``, ``report`` and ``predict``."""
