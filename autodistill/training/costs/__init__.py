"""Costs that are known before training: counted parameters and MACs, measured latency, and the memory of both.

``latency_protocol`` is how latency is measured everywhere.
"""
