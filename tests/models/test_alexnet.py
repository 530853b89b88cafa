"""AlexNet: published parameter counts, map sizes, and equality with the layers of PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.core import Weights
from ssl_jax.models import heads, network, stack
from ssl_jax.models.alexnet import local_response_norm, max_pool

TINY = dict(width=6, fc=(20, 10))  # channels 6, 16, 24, 24, 16


def count(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def made(name: str, images: jax.Array, **options):
  encoder = models.make(name, **options)
  return encoder, jax.jit(encoder.init)(jax.random.key(1), images)


@pytest.mark.parametrize(
  "name, side, options, parameters",
  [
    ("caffenet", 227, {}, 60_965_224),
    ("alexnet", 224, {}, 61_100_840),  # torchvision's
    ("caffenet", 227, dict(groups=1), 62_378_344),  # as first described in one column of this width
  ],
)
def test_parameters_with_1000_classes(name, side, options, parameters):
  classifier = stack(models.make(name, **options), network(heads.Linear(1000)))
  weights = jax.eval_shape(classifier.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
  assert count(weights.params) == parameters


@pytest.mark.parametrize(
  "name, side, options, sides",
  [
    ("caffenet", 227, {}, (55, 27, 13, 13, 13, 6)),
    ("caffenet", 224, {}, (54, 27, 13, 13, 13, 6)),  # an incomplete window at the end, as in Caffe
    ("alexnet", 224, {}, (55, 27, 13, 13, 13, 6)),
    ("caffenet", 64, dict(stem_stride=2), (27, 13, 6, 6, 6, 3)),  # tiles of a jigsaw
    ("caffenet", 96, dict(stem_padding=5), (24, 12, 6, 6, 6, 3)),  # patches of context prediction
  ],
)
def test_sides_of_the_maps(name, side, options, sides):
  encoder = models.make(name, **options)
  images = jnp.zeros((2, side, side, 3))
  maps = jax.eval_shape(
    lambda key: encoder.apply(encoder.init(key, images), images, pyramid=True)[0], jax.random.key(0)
  )
  assert list(maps) == ["conv1", "conv2", "conv3", "conv4", "conv5", "pool5"]
  assert tuple(leaf.shape[1] for leaf in maps.values()) == sides


def test_a_small_image_is_refused():
  with pytest.raises(ValueError, match="a map of 1x1 pixels is too small to be pooled.*config.data.size=227"):
    jax.eval_shape(models.make("caffenet").init, jax.random.key(0), jnp.zeros((1, 20, 20, 3)))


def test_groups_must_divide_the_channels():
  with pytest.raises(
    ValueError, match="config.encoder.groups is 5, which does not divide the 96 or 256 channels"
  ):
    jax.eval_shape(models.make("caffenet", groups=5).init, jax.random.key(0), jnp.zeros((1, 67, 67, 3)))


def test_local_response_norm_by_hand():
  x = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
  found = local_response_norm(x, alpha=10.0, beta=0.5, k=2.0)
  sums = np.array([1 + 4 + 9, 1 + 4 + 9 + 16, 55, 4 + 9 + 16 + 25 + 36, 9 + 16 + 25 + 36, 16 + 25 + 36])
  np.testing.assert_allclose(found, np.arange(1, 7) / np.sqrt(2 + 2.0 * sums), rtol=1e-5)


def test_local_response_norm_survives_vmap_and_gradients():
  x = jax.random.normal(jax.random.key(0), (3, 4, 7))
  np.testing.assert_allclose(jax.vmap(local_response_norm)(x), local_response_norm(x), rtol=1e-6)
  assert local_response_norm(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
  gradient = jax.grad(lambda x: local_response_norm(x).sum())(jnp.zeros((2, 7)))
  np.testing.assert_allclose(gradient, 1)


@pytest.mark.parametrize("norm, normalised", [("none", 0), ("deep", 5), ("all", 7)])
@pytest.mark.parametrize("affine", [True, False])
def test_norms(norm, normalised, affine):
  images = jax.random.uniform(jax.random.key(0), (4, 67, 67, 3))
  encoder, weights = made("caffenet", images, norm=norm, affine=affine, kernel_init="he", **TINY)
  found, state = encoder.apply(weights, images, train=True)
  norms = {name for name in weights.params if name.startswith("norm")}
  assert found.shape == (4, 10) and len(norms) == (normalised if affine else 0)
  assert len(weights.model_state.get("batch_stats", {})) == normalised
  assert ("bias" in weights.params["fc6"]) == (norm == "none")
  changed = jax.tree.map(lambda a, b: bool((a != b).any()), dict(weights.model_state), dict(state))
  assert all(jax.tree.leaves(changed))


def test_biases_and_scales_begin_as_in_caffe():
  images = jnp.zeros((1, 67, 67, 3))
  _, weights = made("caffenet", images, width=24, fc=(400, 300))
  ones = {name: float(leaf["bias"].mean()) for name, leaf in weights.params.items()}
  assert ones == {"conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1, "fc6": 1, "fc7": 1}
  assert weights.params["conv3"]["kernel"].std() == pytest.approx(0.01, rel=0.1)
  assert weights.params["fc7"]["kernel"].std() == pytest.approx(0.005, rel=0.1)


def test_dropout_needs_a_key_and_only_acts_in_training():
  images = jax.random.uniform(jax.random.key(0), (2, 67, 67, 3))
  encoder, weights = made("caffenet", images, dropout=0.5, **TINY)
  with pytest.raises(
    ValueError, match="config.encoder.dropout is 0.5, but this method draws no random numbers"
  ):
    encoder.apply(weights, images, train=True)
  trained = jax.jit(lambda key: encoder.apply(weights, images, train=True, key=key)[0])
  first, second = trained(jax.random.key(0)), trained(jax.random.key(1))
  assert (first != second).any() and (first == 0).any()
  plain = models.make("caffenet", **TINY)
  np.testing.assert_array_equal(encoder.apply(weights, images)[0], plain.apply(weights, images)[0])


def test_without_fully_connected_layers():
  images = jax.random.uniform(jax.random.key(0), (2, 80, 67, 3))
  encoder, weights = made("caffenet", images, **{**TINY, "fc": ()})
  maps, _ = encoder.apply(weights, images, pyramid=True)
  np.testing.assert_allclose(encoder.apply(weights, images)[0], maps["pool5"].mean((1, 2)), rtol=1e-6)
  with_fc, wide = made("caffenet", images, **TINY)
  assert wide.params["fc6"]["kernel"].shape[0] == maps["pool5"][0].size
  assert with_fc.apply(wide, images)[0].min() >= 0


def as_torch(params, torch, groups: int, padding: int, lrn: bool, ceil: bool, side: int):
  """The network in PyTorch with these weights; the rows of fc6 are put into PyTorch's order."""
  layers, flat = [], None
  for number in range(1, 6):
    kernel = np.asarray(params[f"conv{number}"]["kernel"])
    size, _, inputs, outputs = kernel.shape
    parts = groups if number in (2, 4, 5) else 1
    stride, pad = {1: (4, padding), 2: (1, 2)}.get(number, (1, 1))
    conv = torch.nn.Conv2d(inputs * parts, outputs, size, stride, pad, groups=parts)
    with torch.no_grad():
      conv.weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1).copy()))
      conv.bias.copy_(torch.tensor(np.asarray(params[f"conv{number}"]["bias"])))
    layers += [conv, torch.nn.ReLU()]
    layers += [torch.nn.MaxPool2d(3, 2, ceil_mode=ceil)] * (number in (1, 2, 5))
    layers += [torch.nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)] * (lrn and number <= 2)
    flat = outputs
  layers.append(torch.nn.Flatten())
  for name in ("fc6", "fc7"):
    kernel = np.asarray(params[name]["kernel"])
    if name == "fc6":
      kernel = kernel.reshape(side, side, flat, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
    dense = torch.nn.Linear(*kernel.shape)
    with torch.no_grad():
      dense.weight.copy_(torch.tensor(kernel.T.copy()))
      dense.bias.copy_(torch.tensor(np.asarray(params[name]["bias"])))
    layers += [dense, torch.nn.ReLU()]
  return torch.nn.Sequential(*layers)


@pytest.mark.parametrize(
  "options, side",
  [
    (dict(), 80),
    (dict(groups=1, lrn=False, ceil=False, stem_padding=2), 99),
    (dict(groups=1, stem_padding=5), 90),
  ],
)
def test_equals_pytorch(options, side):
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  images = jax.random.uniform(jax.random.key(0), (2, side, side, 3))
  encoder, weights = made("caffenet", images, kernel_init="he", normalize="none", **TINY, **options)
  noise = lambda leaf, key: leaf + 0.1 * jax.random.normal(key, leaf.shape)
  leaves, shape = jax.tree.flatten(weights.params)
  params = jax.tree.unflatten(
    shape, list(map(noise, leaves, jax.random.split(jax.random.key(3), len(leaves))))
  )
  maps, _ = encoder.apply(Weights(params, weights.model_state), images, pyramid=True)
  reference = as_torch(
    params,
    torch,
    options.get("groups", 2),
    options.get("stem_padding", 0),
    options.get("lrn", True),
    options.get("ceil", True),
    maps["pool5"].shape[1],
  )
  with torch.no_grad():
    wanted = reference(torch.tensor(np.asarray(images).transpose(0, 3, 1, 2).copy())).numpy()
  found, _ = encoder.apply(Weights(params, weights.model_state), images)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_max_pool_at_the_end():
  x = jnp.arange(36, dtype=jnp.float32).reshape(1, 6, 6, 1)
  np.testing.assert_array_equal(max_pool(x, False)[0, ..., 0], [[14, 16], [26, 28]])
  np.testing.assert_array_equal(max_pool(x, True)[0, ..., 0], [[14, 16, 17], [26, 28, 29], [32, 34, 35]])
