"""System tests that take too long for `make test`; `make test-long` runs them."""
