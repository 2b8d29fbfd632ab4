"""Divergence Notes: the mathematics of Q-learning with a function approximator, computed and tested in one place."""

__version__ = "0.1.0"
