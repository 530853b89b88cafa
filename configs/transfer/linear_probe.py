"""Linear probe on frozen features, by the protocols of MoCo, SimCLR and MAE.

Command:   ssl-jax evaluate --config=configs/transfer/linear_probe.py:VARIANT --workdir=DIR
Variants:  small: cached features of unaugmented images, learning-rate sweep, rate chosen on held-out training images.
           moco: lincls, lr 30, live augmented images, 100 epochs. simclr: Nesterov 0.1 B/256, batch 4096, 90 epochs.
           mae: LARS, BatchNorm without scale and shift before the layer, batch 16,384, 90 epochs (50 for ViT-L and H).
Expected:  ImageNet R50: MoCo v1 60.6, v2 67.5; SimCLR 1000 epochs 69.3; MAE ViT-B, L, H 68.0, 75.8, 76.6 [as published].
"""

from ssl_jax import EvaluateConfig, recipe

VARIANTS = ("small", "moco", "simclr", "mae")


def get_config(variant="small"):
  if variant not in VARIANTS:
    raise ValueError(
      f"configs/transfer/linear_probe.py has no variant {variant!r}; known: {', '.join(VARIANTS)}"
    )
  if variant == "small":
    return recipe(
      EvaluateConfig,
      tasks=dict(linear_probe=dict(preset="moco", learning_rates=(1.0, 3.0, 10.0, 30.0))),
      data=dict(cache=True),
      baselines=("pixels", "untrained"),
    )
  data = dict(test_split="validation", crop_ratio=0.875, workers=16)
  if variant == "mae":
    return recipe(
      EvaluateConfig,
      tasks=dict(linear_probe=dict(preset="mae", live=True)),
      augment=dict(name="supervised", sampler="byol", method="bicubic", views=1),
      data=dict(interpolation="bicubic", **data),
    )
  return recipe(EvaluateConfig, tasks=dict(linear_probe=dict(preset=variant, live=True)), data=data)
