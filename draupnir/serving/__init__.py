"""Serving: sockets from systemd, TLS, and the limits of connections."""
