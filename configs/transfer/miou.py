"""Mean intersection over union of a network that segments.

Command:   ssl-jax evaluate --config=configs/transfer/miou.py:VARIANT --workdir=DIR
Variants:  whole: images of any size, each at once, on a canvas of the largest height and width. voc12: the
           same on val, padded to 513 pixels as in MoCo's protocol. cityscapes: windows of 769 pixels at
           stride 513. ade20k: the shorter side 512, windows of 512 at stride 341.
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = {
  "whole": ({}, "test"),
  "voc12": (dict(window=513, stride=513), "val"),
  "cityscapes": (dict(window=769, stride=513), "val"),
  "ade20k": (dict(window=512, stride=341, short_side=512), "val"),
}


def get_config(variant="whole"):
  check_variant(variant, VARIANTS, __file__)
  options, split = VARIANTS[variant]
  small = variant == "whole"
  return recipe(
    EvaluateConfig,
    tasks=dict(segmentation=options),
    data=dict(test_split=split, workers=0 if small else 16),
    batch_size=8 if small else 16,
  )
