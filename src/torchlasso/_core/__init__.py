"""The foundations: registries, specifications by name, files, optional packages, running a model."""
