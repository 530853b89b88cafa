"""A study whose runs take a second: masked autoencoders of synthetic images, evaluated by k-NN."""

import ml_collections

from ssl_jax import EvaluateConfig, define_study, recipe


def training(**changes) -> ml_collections.ConfigDict:
  """The recipe of a training of 300 steps."""
  return recipe(
    **{
      **dict(
        method=dict(name="mae", decoder_width=8, decoder_depth=1, decoder_heads=2),
        encoder=dict(name="vit", width=16, depth=1, heads=2, patch=4),
        augment=dict(name="none", views=1, size=16),
        optimizer=dict(name="adamw", learning_rate=1e-3, warmup_epochs=5.0),
        data=dict(name="synthetic", split="train[:128]", size=16, cache=True),
        checkpoint=dict(every_steps=50, keep=2),
        batch_size=32,
        epochs=75.0,
        log_every=10,
      ),
      **changes,
    }
  )


def knn(**changes) -> ml_collections.ConfigDict:
  """The recipe of an evaluation by k-NN."""
  data = dict(test_split="test[:64]", cache=True)
  return recipe(EvaluateConfig, **{**dict(tasks=dict(knn=dict(k=5)), data=data, batch_size=32), **changes})


def get_study(variant=""):
  """Two runs; the variant is the number of seeds, 1 if it is empty."""
  return define_study(
    runs=dict(wide=dict(config=training()), narrow=dict(config=training(), overrides={"encoder.width": 8})),
    evaluations=dict(knn=dict(config=knn(baselines=("pixels",)), scalars=("knn.top1", "knn.top5"))),
    comparisons=[("wide", "narrow"), ("wide", "wide:pixels")],
    seeds=range(int(variant or 1)),
  )
