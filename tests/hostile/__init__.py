"""Attacks as data: cases that code makes, and what has to hold after each; the tests that run them are elsewhere."""
