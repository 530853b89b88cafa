"""Accuracy of a supervised or fine-tuned network's own classifier; `:imagenet` with the evaluation crop of MAE.

Command:   ssl-jax evaluate --config=configs/transfer/classification.py --workdir=DIR
"""

from ssl_jax import EvaluateConfig, recipe

VARIANTS = ("small", "imagenet")


def get_config(variant="small"):
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/transfer/classification.py has no variant {variant!r}; known: {', '.join(VARIANTS)}"
    )
  photographs = dict(test_split="validation", crop_ratio=0.875, interpolation="bicubic", workers=16)
  return recipe(
    EvaluateConfig,
    tasks=dict(classification={}),
    data=photographs if variant == "imagenet" else dict(cache=True),
  )
