"""Linear probe on frozen features: the protocols of MoCo, SimCLR and MAE.

Command:   ssl-jax evaluate --config=configs/transfer/linear_probe.py:VARIANT --workdir=DIR
Variants:  small: features of unaugmented images are computed once; of several learning rates the best on
           held-out training images is taken. The others encode augmented images at every step. moco: the
           protocol of main_lincls, learning rate 30, 100 epochs. simclr: Nesterov momentum, learning rate
           0.1 B/256, batch size B = 4096, 90 epochs. mae: LARS, BatchNorm without scale and shift before
           the linear layer, batch size 16,384, 90 epochs (published with 50 for ViT-L and ViT-H).
Expected:  ImageNet, ResNet-50: MoCo v1 60.6, v2 67.5; SimCLR after 1000 epochs 69.3. MAE ViT-B, L, H: 68.0,
           75.8, 76.6 [as published].
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = ("small", "moco", "simclr", "mae")


def get_config(variant="small"):
  check_variant(variant, VARIANTS, __file__)
  if variant == "small":
    return recipe(
      EvaluateConfig,
      tasks=dict(linear_probe=dict(preset="moco", learning_rates=(1.0, 3.0, 10.0, 30.0))),
      data=dict(cache=True),
      baselines=("pixels", "colour_statistics", "untrained"),
    )
  data = dict(test_split="validation", crop_ratio=0.875, workers=16)
  if variant == "mae":
    return recipe(
      EvaluateConfig,
      tasks=dict(linear_probe=dict(preset="mae", live=True)),
      augment=dict(name="supervised", sampler="byol", method="bicubic", views=1),
      data=dict(interpolation="bicubic", **data),
    )
  if variant == "simclr":  # TensorFlow's crop sampler, and its bicubic resize without antialiasing
    return recipe(
      EvaluateConfig,
      tasks=dict(linear_probe=dict(preset="simclr", live=True)),
      augment=dict(name="supervised", sampler="tf", method="bicubic", antialias=False, views=1),
      data=dict(interpolation="bicubic", **data),
    )
  return recipe(EvaluateConfig, tasks=dict(linear_probe=dict(preset="moco", live=True)), data=data)
