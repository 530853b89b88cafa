"""Segmentation networks: published sizes, what heads read, dropped branches, and relative positions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.core import Weights
from ssl_jax.models import Network, patches, stack
from ssl_jax.models.fcn import PixelClassifier
from ssl_jax.models.segmentation import HEADS, segmenter, upernet
from ssl_jax.models.upernet import PyramidPooling, Rescale
from tests.models import transformer

IMAGES = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
TINY_VIT = dict(name="vit", width=8, depth=4, heads=2, patch=4, normalize="none")
TINY_RESNET = dict(name="resnet8", output_stride=2)
KEY = jax.random.key(7)


def make(encoder: dict, head: str, **options) -> Network:
  """The network with its `apply` jitted; op by op it is slow."""
  made = segmenter(models.make(**encoder), 3, head, **options)
  return made._replace(apply=jax.jit(made.apply, static_argnames="train"))


def random_weights(net: Network, images=IMAGES) -> Weights:
  """Weights that keep the scale of the activations, without zeros and ones that would hide a mistake."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name, noise = path[-1].key, rng.standard_normal(leaf.shape).astype(np.float32)
    if name == "kernel":
      return noise * np.float32(2 / np.prod(leaf.shape[:-1])) ** np.float32(0.5)
    return {"scale": 1 + 0.2 * noise, "var": 1 + np.abs(noise)}.get(name, 0.3 * noise)

  return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(net.init, KEY, images))


def count(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  "head, encoder, side, logits, auxiliary, parameters",
  [
    # Convolutions, BatchNorms and the classifier, counted by hand.
    ("fcn", dict(name="resnet50", output_stride=16, dilate="all"), 513, 33, None,
     9 * 2048 * 256 + 9 * 256 * 256 + 4 * 256 + 257 * 21),
    ("fcn_d8", dict(name="resnet50", output_stride=8), 512, 64, 64,
     9 * (2048 * 512 + 512 * 512 + 2560 * 512) + 6 * 512 + 513 * 21 + 9 * 1024 * 256 + 2 * 256 + 257 * 21),
    ("linear", dict(name="resnet50", output_stride=16), 512, 32, None, 2 * 2048 + 2049 * 21),
    ("linear", dict(name="vit_base"), 512, 32, None, 2 * 768 + 769 * 21),
    ("upernet", dict(name="vit_base", drop_path=0.1), 512, 128, 32,
     3 * (4 * 768 * 768 + 768) + (4 + 3) * 768 * 768 + 9 * (5 + 3 + 4) * 768 * 768 + (1 + 4 + 1 + 3 + 3 + 1)
     * 2 * 768 + 769 * 21 + 9 * 768 * 256 + 2 * 256 + 257 * 21),
  ],
)  # fmt: skip
def test_published_networks_have_their_sizes(head, encoder, side, logits, auxiliary, parameters):
  net, images = segmenter(models.make(**encoder), 21, head), jnp.zeros((1, side, side, 3))
  weights = jax.eval_shape(net.init, KEY, images)
  assert count(weights.params["head"]) == parameters
  trained = jax.eval_shape(lambda w: net.apply(w, images, train=True, key=KEY)[0], weights)
  assert trained.logits.shape == (1, logits, logits, 21) and trained.logits.dtype == jnp.float32
  assert (trained.auxiliary and trained.auxiliary.shape) == (auxiliary and (1, auxiliary, auxiliary, 21))
  evaluated = jax.eval_shape(lambda w: net.apply(w, images)[0], weights)
  assert evaluated.logits == trained.logits and evaluated.auxiliary is None


def shapes_of(module, inputs):
  """The shapes of a module's output, in a network of ViT-B's width."""
  return jax.eval_shape(lambda x: module.init_with_output(KEY, x)[0], inputs)


def test_taps_of_512_pixels_become_strides_4_8_16_32():
  taps = [jnp.zeros((1, 32, 32, 768))] * 4
  found = shapes_of(Rescale(True, jnp.float32), taps)
  assert [x.shape for x in found] == [(1, side, side, 768) for side in (128, 64, 32, 16)]
  pooled = shapes_of(PyramidPooling(768, True, jnp.float32), jnp.zeros((1, 16, 16, 768)))
  assert pooled.shape == (1, 16, 16, 768)


def test_pyramid_pooling_of_a_constant_is_constant_inside():
  module = PyramidPooling(4, False, jnp.float32)
  x = jnp.ones((1, 13, 12, 3)) * jnp.arange(1.0, 4.0).reshape(1, 1, 1, 3)
  y, _ = jax.jit(module.init_with_output)(KEY, x)
  inside = y[:, 1:-1, 1:-1]  # the convolution pads with zeros
  np.testing.assert_allclose(inside, jnp.broadcast_to(inside[:, :1, :1], inside.shape), rtol=1e-4)
  assert np.ptp(inside) > 0.01


def test_scaling_of_the_finest_map_is_two_transposed_convolutions():
  """Every pixel becomes 2x2 pixels that depend on no other one."""
  module = Rescale(False, jnp.float32)
  x = jax.random.normal(KEY, (1, 3, 3, 4))
  variables = module.init(KEY, [x] * 4)
  finest, fine, same, coarse = jax.jit(module.apply)(variables, [x] * 4)
  other = jax.jit(module.apply)(variables, [x.at[:, 1, 2].add(1.0)] * 4)
  for found, changed, step in ((finest, other[0], 4), (fine, other[1], 2)):
    rows, columns = np.nonzero(np.abs(found - changed).max((0, 3)))
    assert {*rows} == {*range(step, 2 * step)} and {*columns} == {*range(2 * step, 3 * step)}
  kernel, bias = (variables["params"]["first2"][name] for name in ("kernel", "bias"))
  np.testing.assert_allclose(fine[0, 3, 4], x[0, 1, 2] @ kernel[1, 0] + bias, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(same, x)
  np.testing.assert_array_equal(coarse, x[:, :2, :2].max((1, 2), keepdims=True))


@pytest.mark.parametrize(
  "depth, options, taps",
  [
    (12, {}, (4, 6, 8, 12)),
    (24, {}, (8, 12, 16, 24)),
    (4, {}, (1, 2, 3, 4)),
    (12, dict(taps=(2, 3, 10, 11)), (2, 3, 10, 11)),
  ],
)
def test_taps_are_the_published_blocks_in_their_order(depth, options, taps):
  encoder = models.make("vit", width=4, depth=depth, heads=1, patch=8, layers="scan")
  reader, _ = upernet(encoder, 3, **options)
  # A head that returns what it reads.
  through = stack(reader, Network(lambda key, x: Weights({}, {}), lambda weights, x, **call: (x, {})))
  trunk = random_weights(encoder)

  @jax.jit
  def both(images):
    weights = Weights(*({"encoder": part, "head": {}} for part in trunk))
    return through.apply(weights, images)[0], encoder.apply(trunk, images, pyramid=True)[0]

  found, maps = both(IMAGES)
  for read, tap in zip(found, taps, strict=True):
    np.testing.assert_array_equal(read, maps[f"block{tap}"])
  assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize("encoder", [TINY_VIT, TINY_RESNET], ids=lambda encoder: encoder["name"])
def test_linear_head_reads_the_last_map_after_the_last_norm(encoder):
  net, trunk = make(encoder, "linear"), models.make(**encoder)
  weights = random_weights(net)
  parts = Weights(weights.params["encoder"], weights.model_state["encoder"])
  maps = jax.jit(lambda images: trunk.apply(parts, images, pyramid=True)[0])(IMAGES)
  if encoder is TINY_VIT:
    last = transformer.norm(np.asarray(maps["block4"], np.float64), weights.params["encoder"]["norm"])
  else:
    last = np.asarray(maps["stage3"])
  head, state = weights.params["head"], weights.model_state["head"]["batch_stats"]["norm"]
  x = (last - state["mean"]) / np.sqrt(state["var"] + 1e-5) * head["norm"]["scale"] + head["norm"]["bias"]
  expected = x @ head["classes"]["kernel"] + head["classes"]["bias"]
  np.testing.assert_allclose(net.apply(weights, IMAGES)[0].logits, expected, rtol=1e-4, atol=1e-4)


def test_encoder_starts_as_it_does_alone():
  """The keys are those of `models.stack`, so that a head changes nothing about its encoder."""
  encoder = models.make(**TINY_VIT)
  weights = jax.jit(make(TINY_VIT, "linear").init)(KEY, IMAGES)
  alone = jax.jit(encoder.init)(jax.random.split(KEY)[0], IMAGES)
  jax.tree.map(np.testing.assert_array_equal, weights.params["encoder"], alone.params)
  assert set(weights.params) == set(weights.model_state) == {"encoder", "head"}


def test_drop_path_and_dropout_draw_from_the_key_of_the_step():
  net = make(TINY_VIT | dict(drop_path=0.5), "upernet", channels=4, dropout=0.5)
  weights = random_weights(net)
  train = lambda seed: net.apply(weights, IMAGES, train=True, key=jax.random.key(seed))
  (first, state), (again, _), (other, _) = train(0), train(0), train(1)
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(first, other))
  # Every norm of the head moves its statistics, that of the auxiliary head too.
  for old, new in zip(jax.tree.leaves(weights.model_state), jax.tree.leaves(state), strict=True):
    assert np.abs(old - new).max() > 1e-4


def test_dropout_drops_whole_channels():
  module = PixelClassifier(3, True, 0.5)
  x, variables = jnp.ones((16, 5, 5, 1)), {"params": {"kernel": jnp.ones((1, 3)), "bias": jnp.zeros(3)}}
  found = jax.jit(lambda key: module.apply(variables, x, rngs={"drop": key}))(KEY).reshape(16, -1)
  assert {*np.unique(found)} == {0, 2} and (np.ptp(found, axis=1) == 0).all()


@pytest.mark.parametrize("encoder, head", [(TINY_RESNET, "fcn_d8"), (TINY_VIT, "upernet")], ids=str)
def test_every_convolution_of_a_bfloat16_network_is_one(encoder, head):
  net = segmenter(models.make(**encoder, dtype="bfloat16"), 3, head)
  weights = jax.eval_shape(net.init, KEY, IMAGES)
  program = jax.make_jaxpr(lambda w: net.apply(w, IMAGES, train=True, key=KEY)[0])(weights)
  kinds = [
    {v.aval.dtype.name for v in equation.invars}
    for equation in program.jaxpr.eqns
    if equation.primitive.name == "conv_general_dilated"
  ]
  assert len(kinds) > 10 and kinds == [{"bfloat16"}] * len(kinds)
  assert {output.dtype.name for output in program.out_avals} == {"float32"}


def test_bfloat16_computes_near():
  rough, exact = (make(TINY_VIT | dict(dtype=dtype), "linear") for dtype in ("bfloat16", "float32"))
  weights = random_weights(exact)
  found, expected = (net.apply(weights, IMAGES)[0].logits for net in (rough, exact))
  assert found.dtype == jnp.float32 and 0 < np.abs(found - expected).max() < 0.1


RELATIVE = TINY_VIT | dict(relative_positions=True)
TABLES = ("relative_rows", "relative_columns")


def features(params, images=IMAGES, **options):
  return jax.jit(models.make(**RELATIVE | options).apply)(Weights(params, {}), images)[0]


def test_relative_positions_start_as_nothing():
  params, alone = (
    jax.jit(models.make(**encoder).init)(KEY, IMAGES).params for encoder in (RELATIVE, TINY_VIT)
  )
  assert params["relative_rows"].shape == params["relative_columns"].shape == (4, 2, 7)
  plain = {name: leaf for name, leaf in params.items() if name not in TABLES}
  jax.tree.map(np.testing.assert_array_equal, plain, alone)
  np.testing.assert_array_equal(features(params), features(plain, relative_positions=False))


def test_relative_positions_get_their_gradient_in_every_loop_over_layers():
  params = random_weights(models.make(**RELATIVE)).params

  def gradient(**options):
    encoder = models.make(**RELATIVE | dict(pool="mean") | options)
    loss = lambda p: jnp.square(encoder.apply(Weights(p, {}), IMAGES, train=True)[0]).sum()
    return jax.jit(jax.grad(loss))(params)

  unrolled, scanned = gradient(layers="unroll"), gradient(layers="scan", remat="full")
  for name in TABLES:
    assert (np.abs(unrolled[name]).max(2) > 1e-6).all()
    np.testing.assert_allclose(scanned[name], unrolled[name], rtol=1e-3, atol=1e-5)


def test_relative_bias_is_that_of_the_offset():
  rng = np.random.default_rng(0)
  rows, columns = rng.standard_normal((2, 5), np.float32), rng.standard_normal((2, 3), np.float32)
  offsets = patches.relative_offsets(rows, 3), patches.relative_offsets(columns, 2)
  found = jax.jit(patches.relative_bias)(*offsets)
  expected = np.zeros((2, 7, 7), np.float32)
  for query in range(6):
    for key in range(6):
      (y, x), (v, u) = divmod(query, 2), divmod(key, 2)
      expected[:, 1 + query, 1 + key] = rows[:, y - v + 2] + columns[:, x - u + 1]
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_relative_tables_are_interpolated_for_other_grids():
  ramp = jnp.arange(-3.0, 4.0)  # made for four patches
  found = patches.relative_offsets(ramp, 8)
  offset = np.subtract.outer(np.arange(8), np.arange(8))
  np.testing.assert_allclose(np.diag(found), 0, atol=1e-6)
  inner = np.abs(offset) < 6
  np.testing.assert_allclose(found[inner], (offset * 7 / 15)[inner], atol=1e-6)
  larger = jax.random.uniform(KEY, (2, 24, 32, 3))  # 6 x 8 patches
  params = random_weights(models.make(**RELATIVE)).params
  small, large = (
    params
    | {"positions": jnp.zeros((rows * columns, 8))}
    | {name: jnp.full((4, 2, 2 * n - 1), 0.2) for name, n in zip(TABLES, (rows, columns))}
    for rows, columns in ((4, 4), (6, 8))
  )
  found = features(small, larger, image_size=16, positions="learned")
  np.testing.assert_allclose(found, features(large, larger, positions="learned"), atol=1e-5)


def test_a_masked_autoencoder_has_no_relative_positions():
  visible = jnp.zeros((2, 4), jnp.int32)
  with pytest.raises(ValueError, match="relative_positions is True, but a masked autoencoder has only"):
    jax.eval_shape(functools.partial(models.make(**RELATIVE).init, visible=visible), KEY, IMAGES)


@pytest.mark.parametrize(
  "encoder, head, options, message",
  [
    (TINY_VIT, "unet", {}, "head is 'unet'; did you mean .* known: fcn, fcn_d8, linear, upernet"),
    (TINY_RESNET, "upernet", {}, "'upernet' reads four blocks of a vision transformer; use config.enc"),
    (TINY_VIT, "fcn_d8", {}, "last two stages of a ResNet; use config.encoder.name='resnet50'"),
    (TINY_VIT | dict(depth=3), "upernet", {}, "config.encoder.depth is 3, but .* four blocks; use 4 or more"),
    (TINY_VIT, "upernet", dict(taps=(1, 2, 2, 4)), r"taps is \(1, 2, 2, 4\); use four increasing numbers"),
    (TINY_VIT, "upernet", dict(taps=(1, 2, 3, 5)), r"config.encoder.depth 4, such as \(1, 2, 3, 4\)"),
    (TINY_VIT, "upernet", dict(taps=(2, 3, 4)), r"taps is \(2, 3, 4\)"),
    (TINY_VIT, "upernet", dict(channels=-1), "config.method.channels is -1; use 0 or more"),
    (TINY_VIT, "upernet", dict(dropout=1.0), r"config.method.dropout is 1.0; use a rate in \[0, 1\)"),
    (TINY_VIT, "linear", dict(channels=3), "config.method.channels is unknown"),
    (TINY_VIT | dict(pool="fc_norm"), "linear", {}, "'fc_norm' lacks; use config.encoder.pool='cls'"),
    (TINY_RESNET, "fcn", dict(dilation=0), "config.method.dilation is 0; use 1 or more"),
    (TINY_RESNET, "fcn_d8", dict(auxiliary_channels=-3), "auxiliary_channels is -3; use 0 or more"),
  ],
)  # fmt: skip
def test_refusals(encoder, head, options, message):
  with pytest.raises(ValueError, match=message):
    segmenter(models.make(**encoder), 3, head, **options)


def test_too_few_classes_and_too_few_patches_are_refused():
  with pytest.raises(ValueError, match="needs labels of two classes or more, not of 1"):
    segmenter(models.make(**TINY_VIT), 1, "linear")
  net = segmenter(models.make(**TINY_VIT), 3, "upernet")
  with pytest.raises(ValueError, match="halves maps of 1 x 4 patches; use images of at least two"):
    jax.eval_shape(net.init, KEY, jnp.zeros((1, 4, 16, 3)))


def test_every_head_says_how_it_is_upsampled():
  assert {name: head.align_corners for name, head in HEADS.items()} == {
    "fcn": True, "fcn_d8": False, "linear": False, "upernet": False,
  }  # fmt: skip
