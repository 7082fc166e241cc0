"""The search space: parameters, YAML grammar, encoding to numbers, moves, priors, and the built-in spaces."""
