"""Costs that are known before training: counted parameters and MACs, measured latency, and the storage of both.

``latency_protocol`` defines how latency is measured everywhere: warm-up, rounds, repetition, noise.
"""
