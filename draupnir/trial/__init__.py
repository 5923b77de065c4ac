"""The trial boot's sign-ins, in a process of their own: the one place that speaks to a server whose data is hostile.

Knows the Postgres protocol and nothing of the daemon; must import only the standard library.
"""
