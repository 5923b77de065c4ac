"""What runs unprivileged inside the sandboxes: the extract and the finalise job."""
