"""Engine ``ray``: trials as Ray actors on one machine or a cluster. It is imported only when it is used."""
