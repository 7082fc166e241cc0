"""Machine-level services of a training: devices, distributed training, measurement lock, durable files, remote storage.

Also a workaround for a fault of oneDNN (``strided``), and keys of the source code that builds a network.
"""
