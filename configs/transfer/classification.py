"""Accuracy of the classifier of a supervised or fine-tuned network.

Command:   ssl-jax evaluate --config=configs/transfer/classification.py --workdir=DIR
Variants:  small: small images, uncropped. imagenet: photographs, with the centre crop and the bicubic
           resize of MAE's evaluation.
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = ("small", "imagenet")


def get_config(variant="small"):
  check_variant(variant, VARIANTS, __file__)
  photographs = dict(test_split="validation", crop_ratio=0.875, interpolation="bicubic", workers=16)
  return recipe(
    EvaluateConfig,
    tasks=dict(classification={}),
    data=photographs if variant == "imagenet" else dict(cache=True),
  )
