"""A network of one convolution, one norm and one layer, which PyTorch can rebuild from the same weights."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax import models
from ssl_jax.abilities import Classifier
from ssl_jax.core import Weights
from ssl_jax.models.norm import BatchNorm, GroupNorm
from ssl_jax.tasks.backbone import Backbone, encoder_only

SIZE, CLASSES, WIDTH = 8, 5, 6


class Trunk(nn.Module):
  """f32[B, H, W, 3] -> f32[B, WIDTH]."""

  norm: Literal["batch", "group", "none"]

  @nn.compact
  def __call__(self, x, *, train):
    x = nn.Conv(WIDTH, (3, 3), use_bias=False, name="conv")(x)
    if self.norm == "batch":
      x = BatchNorm(train, name="norm")(x)
    elif self.norm == "group":
      x = GroupNorm(2, name="norm")(x)
    return nn.relu(x).mean((1, 2))


def shuffled(tree: Any, seed: int) -> Any:
  """The tree with a random value in [0, 0.4] added to each of its numbers."""
  leaves, structure = jax.tree.flatten(tree)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return structure.unflatten([x + 0.4 * jax.random.uniform(k, x.shape) for k, x in zip(keys, leaves)])


def classifier(norm: str = "batch") -> Backbone:
  """Returns a Classifier that has no task of its own, with weights that differ from one another."""
  net = models.stack(models.network(Trunk(norm)), models.network(models.heads.Linear(CLASSES)))

  def predict(params, model_state, images):
    return net.apply(Weights(params, model_state), images)[0]

  params, state = net.init(jax.random.key(0), jnp.zeros((2, SIZE, SIZE, 3)))
  weights = Weights(shuffled(params, 1), shuffled(state, 2))
  method = encoder_only(lambda *args: args[-1], {Classifier: Classifier(predict)})
  return Backbone(jax.device_get(weights), method, {"backbone": f"tiny {norm}"})
