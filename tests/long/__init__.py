"""System tests that attack the installed packages for longer than `make test` may take; `make test-long` runs them."""
