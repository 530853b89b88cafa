"""Classifiers of few labels on frozen features: n a class, 1%, 10%.

Command:   ssl-jax evaluate --config=configs/transfer/low_shot.py:VARIANT --workdir=DIR
Variants:  ridge: 1, 5, 10 and 50 labels a class and 10% of the labels, by ridge regression. logistic, svm:
           the same by scikit-learn (extra `report`): logistic regression, linear support vector machines.
           imagenet: 1% and 10% of ImageNet's labels, of each class equally many, by logistic regression.
Result:    the mean accuracy over 20 draws of the labels (imagenet: 3), with the deviation of a draw.
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = ("ridge", "logistic", "svm", "imagenet")


def get_config(variant="ridge"):
  check_variant(variant, VARIANTS, __file__)
  photographs = variant == "imagenet"
  shared = dict(
    task="low_shot", classifier="logistic" if photographs else variant, draws=3 if photographs else 20
  )
  shots = {} if photographs else {f"{n}_a_class": dict(shots=n, **shared) for n in (1, 5, 10, 50)}
  fractions = {"ten_percent": dict(fraction=0.1, **shared)}
  if photographs:
    fractions["one_percent"] = dict(fraction=0.01, **shared)
  return recipe(
    EvaluateConfig,
    tasks=shots | fractions,
    data=dict(test_split="validation", crop_ratio=0.875, workers=16) if photographs else dict(cache=True),
    baselines=() if photographs else ("pixels", "colour_statistics", "untrained"),
  )
