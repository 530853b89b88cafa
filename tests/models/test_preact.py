"""Pre-activation ResNets, compared with an explicit forward pass and the published parameter counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ssl_jax import models
from ssl_jax.models import heads, network, split, stack
from ssl_jax.models.norm import GroupNorm

IMAGES = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))


@pytest.mark.parametrize("name, parameters", [("preresnet26", 366_938), ("wrn40_2", 2_243_546)])
def test_parameters_with_ten_classes_are_the_published_ones(name, parameters):
  classifier = stack(models.make(name), network(heads.Linear(10)))
  weights = jax.eval_shape(classifier.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  assert sum(leaf.size for leaf in jax.tree.leaves(weights.params)) == parameters


def conv(x, p, stride=1):
  pad = p["kernel"].shape[0] // 2
  return lax.conv_general_dilated(
    x, p["kernel"], (stride,) * 2, ((pad, pad),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def norm_relu(x, p, groups=8):
  shape = (x.shape[0], -1, groups, x.shape[-1] // groups)
  wide = np.asarray(x, np.float64).reshape(shape)
  wide = (wide - wide.mean((1, 3), keepdims=True)) / np.sqrt(wide.var((1, 3), keepdims=True) + 1e-5)
  y = wide.reshape(x.shape) * np.asarray(p["scale"]) + np.asarray(p["bias"])
  return jnp.asarray(np.maximum(y, 0), jnp.float32)


@pytest.mark.parametrize("shortcut", ["pool", "conv"])
def test_forward_pass_is_that_of_the_published_blocks(shortcut):
  encoder = models.make("preresnet14", width=8, shortcut=shortcut)
  weights = jax.jit(encoder.init)(jax.random.key(1), IMAGES)
  leaves, tree = jax.tree.flatten(weights.params)
  params = tree.unflatten(
    [leaf + 0.2 * jax.random.normal(jax.random.key(i), leaf.shape) for i, leaf in enumerate(leaves)]
  )
  x = conv(IMAGES * 2 - 1, params["conv_stem"])
  for stage in (1, 2, 3):
    for block in (1, 2):
      p, stride = params[f"stage{stage}_block{block}"], 2 if stage > 1 and block == 1 else 1
      y = norm_relu(x, p["norm1"])
      short = x
      if stride == 2 and shortcut == "conv":
        short = conv(y, p["conv_shortcut"], 2)
      elif stride == 2:
        short = x.reshape(2, x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))
        short = jnp.concatenate([short, jnp.zeros_like(short)], -1)
      x = short + conv(norm_relu(conv(y, p["conv1"], stride), p["norm2"]), p["conv2"])
  expected = norm_relu(x, params["norm_last"]).mean((1, 2))
  found, _ = jax.jit(encoder.apply)(weights._replace(params=params), IMAGES)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_trunk_and_branch_are_the_whole():
  encoder = models.make("preresnet14", width=8)
  weights = jax.jit(encoder.init)(jax.random.key(1), IMAGES)
  for layer in ("stem", "stage1", "stage2"):
    trunk, rest = split(encoder, layer)
    maps, _ = trunk.apply(weights, IMAGES)
    np.testing.assert_allclose(
      rest.apply(weights, maps)[0], encoder.apply(weights, IMAGES)[0], rtol=1e-5, atol=1e-6
    )


def test_group_norm_takes_only_groups_that_divide():
  with pytest.raises(ValueError, match="channel_groups 3 does not divide 8 channels"):
    GroupNorm(3).init(jax.random.key(0), jnp.zeros((1, 2, 2, 8)))
