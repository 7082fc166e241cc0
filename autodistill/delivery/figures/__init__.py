"""TODO: what this room is, and what it is not."""
