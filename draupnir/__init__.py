"""Draupnir's daemon: the HTTP API, the metadata and the operations; it never touches a data directory."""

__version__ = "1.0.0"
