"""Runs: folders with an experiment that was begun, trained, evaluated and can be read again."""
