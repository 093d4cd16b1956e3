"""Training: one loop that can be stopped, what it trains, and trained networks by what made them.

* `classifier`, `autoencoder`, `contrastive`: training in place, the same for the same seed;
* `autoencoders_side_by_side`: several small ones at once;
* `trained`: networks that ship, that lie in the cache, or that are trained now and kept;
* `loop`, `checkpoints`: what goes on after a stop, and weights on disk.

Nothing is imported here: the command line looks into this package before it knows whether PyTorch is needed.
"""
