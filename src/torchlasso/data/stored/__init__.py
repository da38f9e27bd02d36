"""Rows that stay on a disk: encoded images and the numbers of tables, read a batch at a time."""
