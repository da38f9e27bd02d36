"""The sections of a run's page: each is a function of the shown run, and empty if it does not apply."""
