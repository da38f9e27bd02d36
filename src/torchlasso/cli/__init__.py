"""The command line ``torchlasso``: a file for each command."""
