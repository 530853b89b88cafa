"""A pretext task on test images, k-NN, and linear probes on every layer.

Command:   ssl-jax evaluate --config=configs/transfer/pretext.py:VARIANT --workdir=DIR
Variants:  task: for networks of a pretext task. layers: for any network, without the task itself and the
           probe of MoCo's protocol.
The recipe is for small ResNets; for a ResNet-50 on ImageNet use configs/transfer/layers.py. The untrained
network is the baseline.
"""

from ssl_jax import EvaluateConfig, check_variant, recipe

VARIANTS = ("task", "layers")

# side of the grid that a feature map is averaged over, for up to 9,000 numbers per layer
LAYERS = {"stage1": 16, "stage2": 8, "stage3": 4, "stage4": 2}


def get_config(variant="task"):
  check_variant(variant, VARIANTS, __file__)
  # MAE's preset has BatchNorm before the linear layer: the feature maps of the layers differ in scale.
  small = dict(
    task="linear_probe",
    preset="mae",
    optimizer="nesterov",
    batch_size=512,
    epochs=30,
    warmup_epochs=1,
    learning_rates=(0.03, 0.1, 0.3),
  )
  tasks = dict(knn=dict(k=20, temperature=0.07))
  if variant == "task":
    probe = dict(preset="moco", learning_rates=(0.3, 1.0, 3.0, 10.0, 30.0))
    tasks = dict(pretext=dict(), **tasks, linear_probe=probe)
  return recipe(
    EvaluateConfig,
    tasks=tasks | {layer: dict(layer=layer, grid=grid, **small) for layer, grid in LAYERS.items()},
    data=dict(cache=True),
    baselines=("untrained",),
  )
