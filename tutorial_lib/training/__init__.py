"""Training: one loop, checkpoints, and trained networks by key."""
