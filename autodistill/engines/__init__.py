"""CONNECTS search and training: engines drive a passive study with workers."""
