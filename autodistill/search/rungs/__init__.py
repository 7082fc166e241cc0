"""Rungs (epochs at which trials are compared): levels, promotion, losses by rung, predicted time of an epoch."""
