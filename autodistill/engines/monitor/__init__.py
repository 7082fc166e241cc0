"""Progress of a running search, and a warning if its budget is too short."""
