"""The privileged helper; empty, so that `draupnir_helper.wire` loads nothing else."""
