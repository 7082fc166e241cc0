"""Data sources, one module each, which registers itself; the other modules here are shared by the sources."""
