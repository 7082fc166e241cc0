"""Analysis of finished studies: comparison of several, importance of parameters, the best result over time."""
