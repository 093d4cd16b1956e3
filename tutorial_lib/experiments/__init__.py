"""Experiments behind the published tables, and the rows in which their results are kept."""
