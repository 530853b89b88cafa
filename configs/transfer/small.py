"""k-NN and linear probe on a small data set.

Command:   ssl-jax evaluate --config=configs/transfer/small.py --workdir=runs/sample
Baselines are raw pixels and the untrained network.
"""

from ssl_jax import EvaluateConfig, recipe


def get_config():
  return recipe(
    EvaluateConfig,
    tasks=dict(
      knn=dict(k=20, temperature=0.07),
      linear_probe=dict(preset="moco", learning_rates=(0.3, 1.0, 3.0, 10.0, 30.0)),
    ),
    data=dict(cache=True),
    baselines=("pixels", "untrained"),
  )
