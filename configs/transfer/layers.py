"""Linear probes on every layer of a ResNet-50, as the pretext papers did: maps averaged to about 9,000 numbers, BatchNorm first.

Command:   ssl-jax evaluate --config=configs/transfer/layers.py --workdir=DIR
Expected:  ImageNet top-1 of the best layer: rotation 54.2, context 51.2 [as published by MMSelfSup].
Layers:    stem 64 x 12 x 12, stage1 256 x 6 x 6, stage2 512 x 4 x 4, stage3 1024 x 3 x 3, stage4 2048 x 2 x 2. One rate each,
           for live probes choose among several only where there is a validation split.
"""

from ssl_jax import EvaluateConfig, recipe

LAYERS = {"stem": 12, "stage1": 6, "stage2": 4, "stage3": 3, "stage4": 2}


def get_config():
  return recipe(
    EvaluateConfig,
    tasks={
      layer: dict(
        task="linear_probe",
        preset="moco",
        learning_rates=(0.01,),
        optimizer="nesterov",
        normalize="batchnorm",
        epochs=90,
        weight_decay=1e-4,
        live=True,
        layer=layer,
        grid=grid,
      )
      for layer, grid in LAYERS.items()
    },
    data=dict(test_split="validation", crop_ratio=0.875, workers=16),
  )
