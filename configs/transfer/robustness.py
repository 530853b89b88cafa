"""What corruptions cost a classifier: 15 corruptions, 5 severities, made on the fly.

Command:   ssl-jax evaluate --config=configs/transfer/robustness.py:VARIANT --workdir=DIR
           --config.tasks.robustness.released=FOLDER reads CIFAR-10-C's or ImageNet-C's own files instead
Variants:  imagenet, cifar10: the resize of the data; `examples` limits the images, the first of the test split.
Expected:  ResNet-50 on ImageNet-C: clean error 23.9, mCE 76.7 [Hendrycks & Dietterich 2019].
"""

from ssl_jax import EvaluateConfig, recipe

VARIANTS = ("imagenet", "cifar10")


def get_config(variant="imagenet"):
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/transfer/robustness.py has no variant {variant!r}; known: {', '.join(VARIANTS)}"
    )
  if variant == "cifar10":
    return recipe(EvaluateConfig, tasks=dict(robustness=dict(examples=2000)), data=dict(cache=True))
  return recipe(
    EvaluateConfig,
    tasks=dict(robustness=dict()),
    data=dict(test_split="validation", crop_ratio=0.875, workers=16),
  )
