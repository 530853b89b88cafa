"""ResNets, compared with published parameter counts and the conventions of PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.models import heads, network, stack
from ssl_jax.models.norm import BatchNorm
from ssl_jax.models.resnet import ResNet

IMAGES = jax.random.uniform(jax.random.key(0), (8, 32, 32, 3))
TINY = dict(width=8, stem="small")


def make(name: str, **options) -> models.Network:
  """The encoder with both functions jitted; op by op they are slow."""
  made = models.make(name, **options)
  return models.Network(jax.jit(made.init), jax.jit(made.apply, static_argnames=("train", "pyramid")))


def count(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  "name, parameters",
  [
    ("resnet18", 11_689_512),
    ("resnet34", 21_797_672),
    ("resnet50", 25_557_032),
    ("resnet101", 44_549_160),
    ("resnet152", 60_192_808),
  ],
)
def test_parameters_with_1000_classes_are_torchvisions(name, parameters):
  classifier = stack(models.make(name), network(heads.Linear(1000)))
  weights = jax.eval_shape(classifier.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
  assert count(weights.params) == parameters


@pytest.mark.parametrize("width, millions", [(64, 24), (128, 94), (256, 375)])
def test_wide_resnet50_has_simclrs_size(width, millions):
  weights = jax.eval_shape(models.make("resnet50", width=width).init, jax.random.key(0), IMAGES)
  assert round(count(weights.params) / 1e6) == pytest.approx(millions, abs=1)


@pytest.mark.parametrize("stem, side", [("imagenet", 1), ("small", 2), ("cifar", 4)])
def test_stems_halve_as_they_say(stem, side):
  encoder = make("resnet18", width=8, stem=stem)
  weights = encoder.init(jax.random.key(0), IMAGES)
  maps, _ = encoder.apply(weights, IMAGES, pyramid=True)
  assert maps["stage4"].shape == (8, side, side, 64)
  features, _ = encoder.apply(weights, IMAGES)
  np.testing.assert_allclose(features, maps["stage4"].mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_dilated_network_computes_the_strided_one_and_what_lies_between(bottleneck):
  strided, dilated = (
    network(ResNet((1, 1, 2, 1), bottleneck, width=4, stem="small", output_stride=stride))
    for stride in (0, 4)
  )
  weights = jax.jit(strided.init)(jax.random.key(0), IMAGES[:2])
  coarse, fine = (
    jax.jit(lambda w, net=net: net.apply(w, IMAGES[:2], pyramid=True)[0])(weights)
    for net in (strided, dilated)
  )
  assert [fine[layer].shape[1] for layer in ("stage1", "stage2", "stage3", "stage4")] == [16, 8, 8, 8]
  for layer, step in {"stage2": 1, "stage3": 2, "stage4": 4}.items():
    np.testing.assert_allclose(fine[layer][:, ::step, ::step], coarse[layer], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "stride, dilate, found",
  [(16, "later", {2: 2}), (16, "all", {2: 3}), (8, "later", {2: 6, 4: 2}), (8, "all", {2: 6, 4: 3})],
)
def test_dilations_of_a_resnet50(stride, dilate, found):
  """Counts the 3x3 convolutions of each dilation; the parameters are those of the strided network."""
  image = jnp.zeros((1, 513, 513, 3))
  encoder, plain = models.make("resnet50", output_stride=stride, dilate=dilate), models.make("resnet50")
  weights = jax.eval_shape(plain.init, jax.random.key(0), image)
  assert jax.eval_shape(encoder.init, jax.random.key(0), image) == weights
  program = str(jax.make_jaxpr(lambda weights: encoder.apply(weights, image)[0])(weights))
  assert {d: program.count(f"rhs_dilation=({d}, {d})") for d in found} == found
  maps = jax.eval_shape(lambda weights: encoder.apply(weights, image, pyramid=True)[0], weights)
  sides = {16: [129, 65, 33, 33], 8: [129, 65, 65, 65]}[stride]
  assert [maps[f"stage{i + 1}"].shape[1] for i in range(4)] == sides


def test_group_norm_network_has_no_state_and_treats_images_alone():
  encoder = make("resnet10", norm="group", channel_groups=4, **TINY)
  weights = encoder.init(jax.random.key(0), IMAGES)
  assert not jax.tree.leaves(weights.model_state)
  together, _ = encoder.apply(weights, IMAGES, train=True)
  alone, _ = encoder.apply(weights, IMAGES[:1], train=True)
  np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-6)


def test_zero_init_starts_blocks_as_their_shortcut():
  encoder = make("resnet18", zero_init=True, **TINY)
  weights = encoder.init(jax.random.key(0), IMAGES)
  assert not weights.params["stage1_block1"]["norm_last"]["scale"].any()
  maps, _ = encoder.apply(weights, IMAGES, pyramid=True)
  np.testing.assert_allclose(maps["stage1"], maps["stem"], rtol=1e-6)


def test_bfloat16_keeps_parameters_statistics_and_features_in_float32():
  encoder = make("resnet10", dtype="bfloat16", **TINY)
  weights = encoder.init(jax.random.key(0), IMAGES)
  features, state = encoder.apply(weights, IMAGES, train=True)
  assert {leaf.dtype for leaf in jax.tree.leaves((weights, state, features))} == {jnp.dtype("float32")}
  exact, _ = make("resnet10", **TINY).apply(weights, IMAGES, train=True)
  np.testing.assert_allclose(features, exact, atol=0.1)
  assert np.abs(features - exact).max() > 0


def test_pixels_are_normalised_by_the_network():
  plain = make("resnet10", normalize="none", **TINY)
  ours = make("resnet10", normalize="imagenet", **TINY)
  weights = plain.init(jax.random.key(0), IMAGES)
  mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
  by_hand = (IMAGES - mean.reshape(1, 1, 1, 3)) / std.reshape(1, 1, 1, 3)
  np.testing.assert_allclose(
    ours.apply(weights, IMAGES)[0], plain.apply(weights, by_hand)[0], rtol=1e-4, atol=1e-5
  )


def normed(groups: int, x, train=True):
  module = BatchNorm(train, groups=groups)
  return module.apply(module.init(jax.random.key(0), x), x, mutable=["batch_stats"])


def test_batch_norm_in_groups_is_batch_norm_of_each_part():
  x = jax.random.normal(jax.random.key(1), (8, 3, 3, 5)) * 2 + 1
  y, state = normed(4, x)
  parts = np.asarray(x).reshape(4, -1, 5)
  expected = (parts - parts.mean(1, keepdims=True)) / np.sqrt(parts.var(1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(state["batch_stats"]["mean"], 0.1 * parts.mean((0, 1)), rtol=1e-5)
  np.testing.assert_allclose(state["batch_stats"]["var"], 0.9 + 0.1 * parts.var(1).mean(0), rtol=1e-5)


def test_remat_changes_nothing_but_what_is_kept():
  plain, remat = (make("resnet10", remat=kind, **TINY) for kind in ("none", "full"))
  weights = plain.init(jax.random.key(0), IMAGES)
  assert jax.tree.structure(weights) == jax.tree.structure(remat.init(jax.random.key(0), IMAGES))

  def loss(network, params):
    y, state = network.apply(weights._replace(params=params), IMAGES, train=True)
    return jnp.square(y).mean(), state

  found, expected = (
    jax.jit(jax.value_and_grad(functools.partial(loss, network), has_aux=True))(weights.params)
    for network in (remat, plain)
  )
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected)


def test_batch_norm_in_evaluation_uses_the_running_statistics():
  x = jax.random.normal(jax.random.key(1), (4, 5))
  np.testing.assert_allclose(normed(1, x, train=False)[0], x / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_groups_that_do_not_divide_the_batch_are_refused():
  with pytest.raises(ValueError, match="batch of 8 images does not divide into 3 BatchNorm groups"):
    normed(3, jnp.zeros((8, 2)))


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(name="resnet51"), r"no encoder is called 'resnet51'; did you mean .*'resnet50'"),
    (dict(name="resnet50", widht=3), r"config.encoder.widht is unknown; did you mean 'width'"),
    (dict(name="resnet50", width=3.5), r"config.encoder.width is 3.5 of type float; use a value of type int"),
    (dict(name="resnet50", stem="tiny"), r"config.encoder.stem is 'tiny'; known: cifar, imagenet, small"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    models.make(**options)


def test_heads_have_their_published_shapes():
  x = jnp.ones((4, 16))
  for module, kernels in [
    (heads.Linear(8), 16 * 8 + 8),
    (heads.MLP(8), 16 * 16 + 16 + 16 * 8 + 8),
    (heads.SimCLRHead(8), 16 * 16 + 2 * 16 + 16 * 8 + 8),
    (heads.SimCLRHead(8, final_bn=False), 16 * 16 + 2 * 16 + 16 * 8),
  ]:
    made = network(module)
    weights = made.init(jax.random.key(0), x)
    assert count(weights.params) == kernels
    assert made.apply(weights, x, train=True)[0].shape == (4, 8)
