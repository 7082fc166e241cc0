"""Shared values, errors and small tools: records, registry, budget, strict YAML, wording, processes.

Modules here import no other package of autodistill, and no torch, Optuna or other heavy library.
"""
