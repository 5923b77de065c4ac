"""`draupnir doctor`: its checks and their report. Changes nothing."""
