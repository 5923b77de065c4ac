"""The sign-in probes of the trial boot, in a separate process: the only code that connects to a hostile server.

It implements the Postgres protocol, is independent of the daemon, and must import only the standard library.
"""
