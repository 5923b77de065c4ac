"""Runs the client as `python3 -m draupnir_client`."""

from __future__ import annotations

from draupnir_client.cli import main

if __name__ == "__main__":
    main()
