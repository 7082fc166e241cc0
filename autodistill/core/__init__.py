"""Values, errors and small tools that every room may use: records, registry, budget, strict YAML, wording, processes.

Nothing here imports another room, torch, Optuna or any other heavy library.
"""
