"""The HTTP API of the daemon: parse a request, call one operation, answer; multi-step work is in operations."""
