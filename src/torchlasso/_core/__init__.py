"""The foundations: specifications by name, files, extras."""
