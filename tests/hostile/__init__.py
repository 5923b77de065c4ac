"""Attacks as data: generated cases, and the invariants after each; the tests that run them are elsewhere."""
