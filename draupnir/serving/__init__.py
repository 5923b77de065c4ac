"""The room of the listeners: sockets from systemd, TLS, and the bounds on connections."""
