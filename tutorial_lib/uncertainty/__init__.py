"""Uncertainty of a prediction: the 1-D example, ensembles, dropout at test time, and how to take the result apart."""
