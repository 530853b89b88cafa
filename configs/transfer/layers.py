"""Linear probes on every layer of a ResNet-50.

Command:   ssl-jax evaluate --config=configs/transfer/layers.py --workdir=DIR
Expected:  ImageNet, top-1 of the best layer: rotation 54.2, context 51.2 [as published by MMSelfSup].
Layers:    This is the protocol of the papers on pretext tasks. The feature map of each layer is averaged
           over a grid to about 9,000 numbers: stem 64 x 12 x 12, stage1 256 x 6 x 6, stage2 512 x 4 x 4,
           stage3 1024 x 3 x 3, stage4 2048 x 2 x 2. BatchNorm precedes the linear layer. There is one
           learning rate per layer, because probes on live augmented images can choose among several only if
           there is a validation split.
"""

from ssl_jax import EvaluateConfig, recipe

# side of the grid
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
