"""Augmentation on the device: pure functions of a random key, from uint8 images to float views in [0, 1].

Start with `make`, or with compose, which applies a recipe to a batch. recipes holds the published recipes
(MoCo, SimCLR, supervised training, fine-tuning and others); colour, resample, blur and randaugment hold the
operations from which they are built. crops samples crop boxes and crops. ops holds the ten operations of
SimCLR's figure 4 on one image. mix holds mixup and cutmix.
"""

from ssl_jax.augment.compose import evaluation, factory, known, make

__all__ = ["evaluation", "factory", "known", "make"]
