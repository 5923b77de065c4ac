"""The room of `draupnir doctor`: what is looked at, and how it is told. Changes nothing."""
