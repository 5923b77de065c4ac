"""The HTTP face of the daemon: parse, call one operation, answer; holds no sequence of steps of its own."""
