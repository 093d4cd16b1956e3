"""Rows of results: one number each with what made it; tables, and the published numbers beside them."""
