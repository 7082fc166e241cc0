"""Checks of a teacher before the first trial: ``preflight`` calls the single checks in order.."""
