"""The search space: parameters, its YAML grammar, encoding to numbers, moves in it, priors, the built-in spaces."""
