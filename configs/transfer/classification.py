"""Accuracy of the classifier of a supervised or fine-tuned network.

Command:   ssl-jax evaluate --config=configs/transfer/classification.py --workdir=DIR
Variants:  small: small images, uncropped. imagenet: photographs, with the centre crop and the bicubic
           resize of MAE's evaluation. clips: videos, by 25 frames and ten crops of each; name the test split
           with --config.data.test_split=SPLIT, for UCF101 testlist01.
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = ("small", "imagenet", "clips")


def get_config(variant="small"):
  check_variant(variant, VARIANTS, __file__)
  if variant == "clips":
    data = dict(crop_ratio=0.875)
    return recipe(EvaluateConfig, tasks=dict(classification=dict(frames=25)), data=data, batch_size=8)
  photographs = dict(test_split="validation", crop_ratio=0.875, interpolation="bicubic", workers=16)
  return recipe(
    EvaluateConfig,
    tasks=dict(classification={}),
    data=photographs if variant == "imagenet" else dict(cache=True),
  )
