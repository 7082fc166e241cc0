"""Spaces fitted to a study: to the size of its images, and to networks that it names. The grammar is elsewhere."""
