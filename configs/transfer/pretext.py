"""A pretext task on images not seen, and what it taught: linear probe, k-NN and linear probes on every layer of a small ResNet.

Command:   ssl-jax evaluate --config=configs/transfer/pretext.py --workdir=DIR
The untrained network stands beside it. For ResNet-50 on ImageNet: configs/transfer/layers.py.
"""

from ssl_jax import EvaluateConfig, recipe

#         side of the grid that a map is averaged over: up to 9,000 numbers a layer where the map has them
LAYERS = {"stage1": 16, "stage2": 8, "stage3": 4, "stage4": 2}


def get_config():
  small = dict(
    task="linear_probe",
    preset="mae",
    optimizer="nesterov",
    batch_size=512,
    epochs=30,
    warmup_epochs=1,
    learning_rates=(0.03, 0.1, 0.3),
  )  # BatchNorm first: maps of different layers differ in scale
  return recipe(
    EvaluateConfig,
    tasks=dict(
      pretext=dict(),
      knn=dict(k=20, temperature=0.07),
      linear_probe=dict(preset="moco", learning_rates=(0.3, 1.0, 3.0, 10.0, 30.0)),
      **{layer: dict(layer=layer, grid=grid, **small) for layer, grid in LAYERS.items()},
    ),
    data=dict(cache=True),
    baselines=("untrained",),
  )
