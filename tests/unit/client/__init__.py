"""Tests of the command-line client; a package, so that they share the fake server of conftest.py."""
