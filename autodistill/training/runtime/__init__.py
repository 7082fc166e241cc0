"""The machine under a training: devices, processes of one training, the measurement lock, durable files.

Also the forward pass that avoids a fault of oneDNN (``strided``), and keys of source code.
"""
