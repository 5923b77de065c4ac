"""Draupnir's command-line client. It uses the HTTP API, and imports click, httpx and the standard library only."""

__version__ = "1.0.0"
