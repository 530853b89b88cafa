"""Weighted k-NN on frozen features: `--config=configs/transfer/knn.py` for small images, `:imagenet` for photographs.

Command:   ssl-jax evaluate --config=configs/transfer/knn.py --workdir=DIR
Expected:  ImageNet R50, k=20: MoCo v2 about 55.6, SimCLR about 48, supervised about 75 [as published].
"""

from ssl_jax import EvaluateConfig, recipe

VARIANTS = ("small", "imagenet")


def get_config(variant="small"):
  if variant not in VARIANTS:
    raise ValueError(f"configs/transfer/knn.py has no variant {variant!r}; known: {', '.join(VARIANTS)}")
  photographs = variant == "imagenet"
  data = dict(test_split="validation", crop_ratio=0.875, workers=16) if photographs else dict(cache=True)
  return recipe(
    EvaluateConfig,
    tasks=dict(knn=dict(k=20, temperature=0.07)),
    data=data,
    baselines=() if photographs else ("pixels", "untrained"),
  )
