"""The room of `draupnir doctor`: the checks, and their report. Changes nothing."""
