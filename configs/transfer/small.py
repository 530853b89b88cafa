"""k-NN, linear probe and low-shot classifier on a small data set.

Command:   ssl-jax evaluate --config=configs/transfer/small.py --workdir=runs/sample
Baselines are raw pixels in their strongest form, the means and deviations of the three colours, and the
untrained network.
"""

from ssl_jax import EvaluateConfig, recipe


def get_config():
  return recipe(
    EvaluateConfig,
    tasks=dict(
      knn=dict(k=20, temperature=0.07),
      linear_probe=dict(preset="moco", learning_rates=(0.3, 1.0, 3.0, 10.0, 30.0)),
      low_shot=dict(shots=10),
    ),
    data=dict(cache=True),
    baselines=("pixels", "colour_statistics", "untrained"),
  )
