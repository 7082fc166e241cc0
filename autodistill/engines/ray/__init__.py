"""Ray Tune as an engine: trials as Ray actors on one machine or a cluster. Imported only when it is used."""
