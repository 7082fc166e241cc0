"""Data sources, one file each. A file here registers itself; nothing else needs to know it."""
