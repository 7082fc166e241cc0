"""Weights that a network starts from: where they are, their licence and input, and how they get into a network.

It knows neither families of students nor teachers; both take weights from here.
"""
