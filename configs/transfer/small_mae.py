"""k-NN and MAE's linear probe for small transformers.

Command:   ssl-jax evaluate --config=configs/transfer/small_mae.py --workdir=DIR
Features are computed once. The probe has BatchNorm without scale and shift and is trained with LARS; its
learning rate is chosen on held-out training images. On two cores a ViT-Ti/4 encodes about 200 CIFAR-10 images
per second; with --config.data.train_split='train[:10000]' the evaluation takes minutes.
"""

from ssl_jax import EvaluateConfig, recipe


def get_config():
  return recipe(
    EvaluateConfig,
    tasks=dict(
      knn=dict(k=20, temperature=0.07),
      linear_probe=dict(preset="mae", batch_size=512, epochs=50, learning_rates=(0.3, 1.0, 3.0, 10.0)),
    ),
    data=dict(cache=True),
    baselines=("pixels", "colour_statistics", "untrained"),
  )
