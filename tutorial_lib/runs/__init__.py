"""What a cell of an experiment is, where it is stored, and how a grid of cells is run."""
