"""A program apart from the daemon: prepares the private metadata cluster and becomes its Postgres."""
