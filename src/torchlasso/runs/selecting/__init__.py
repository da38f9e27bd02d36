"""The selection of the features of a table, with its files and its page."""
