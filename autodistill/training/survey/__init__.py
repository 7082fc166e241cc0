"""Costs of many students before any is trained: the survey, predicted costs of the others, checks of a space."""
