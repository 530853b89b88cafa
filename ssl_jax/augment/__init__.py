"""Augmentation on the device: uint8 images in, float views in [0, 1] out, pure functions of a key.

ops: the ten operations of SimCLR's figure 4 on one image. crops: where to crop, and cropping. recipes: what
MoCo, SimCLR and supervised training do. compose: a recipe applied to a batch; start there, or with `make`.
colour, resample and blur are what the recipes are made of. gallery draws them.
"""

from ssl_jax.augment.compose import evaluation, factory, known, make

__all__ = ["evaluation", "factory", "known", "make"]
