"""Engine ``ray``: trials as Ray actors on one machine or a cluster. Only ``options`` is imported before it is used."""
