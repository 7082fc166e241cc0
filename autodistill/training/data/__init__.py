"""Images and labels of a study: sources, splits, caches of decoded images, fingerprints."""
