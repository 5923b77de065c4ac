"""The extract and the finalise job, which run unprivileged inside their sandboxes."""
