"""The privileged helper; this module is empty, so that an import of `draupnir_helper.wire` loads nothing else."""
