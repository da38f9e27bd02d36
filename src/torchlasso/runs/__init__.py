"""Runs: experiments that are trained and evaluated, each with a folder that can be resumed and read again."""
