"""Runs the checks of `draupnir doctor`, and reports them. Changes nothing."""
