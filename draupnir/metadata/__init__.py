"""Prepares the private metadata cluster and executes its Postgres, as a program separate from the daemon."""
