"""A program separate from the daemon: prepares the private metadata cluster and executes its Postgres."""
