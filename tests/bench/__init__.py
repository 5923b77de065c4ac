"""Benchmarks: each figure of ours beside its comparison, measured in turn in one run, inside the test machine."""
