"""Weighted k-nearest-neighbour classification of frozen features.

Command:   ssl-jax evaluate --config=configs/transfer/knn.py --workdir=DIR
Variants:  small: small images, with raw pixels, statistics of colours and the untrained network as
           baselines. imagenet: photographs.
Expected:  ImageNet, ResNet-50, k = 20: MoCo v2 about 55.6, SimCLR about 48, supervised about 75 [as
           published].
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = ("small", "imagenet")


def get_config(variant="small"):
  check_variant(variant, VARIANTS, __file__)
  photographs = variant == "imagenet"
  data = dict(test_split="validation", crop_ratio=0.875, workers=16) if photographs else dict(cache=True)
  return recipe(
    EvaluateConfig,
    tasks=dict(knn=dict(k=20, temperature=0.07)),
    data=data,
    baselines=() if photographs else ("pixels", "colour_statistics", "untrained"),
  )
