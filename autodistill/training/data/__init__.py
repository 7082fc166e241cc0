"""Images and labels in memory: sources, splits, fingerprints."""
