"""DECIDES: the study, the search space, samplers, rungs, budget and fronts. Never imports training, torch or timm."""
