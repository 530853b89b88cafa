"""Vision transformers, compared with published sizes, a numpy implementation, and each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.core import Weights
from ssl_jax.models import heads, network, patches, stack
from ssl_jax.models.attention import attend
from ssl_jax.models.dense import Dense, dense
from ssl_jax.models.vit import gelu
from tests.models import transformer

IMAGES = jax.random.uniform(jax.random.key(0), (4, 16, 16, 3))
TINY = dict(width=16, depth=3, heads=2, patch=4, normalize="none")


def make(**options) -> models.Network:
  made = models.make("vit", **{**TINY, **options})
  return made._replace(
    init=jax.jit(made.init), apply=jax.jit(made.apply, static_argnames=("train", "pyramid"))
  )


def weights_of(encoder: models.Network, scale: float = 0.3) -> Weights:
  """Weights without zeros and ones, so that a missing bias or scale changes the output."""
  weights = encoder.init(jax.random.key(1), IMAGES)
  leaves, tree = jax.tree.flatten(weights)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  return tree.unflatten(
    [leaf + scale * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys)]
  )


def count(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  "name, patch, parameters",
  [  # timm's counts, which include the fixed position table with the class token's position
    ("vit_tiny", 16, 5_524_416),
    ("vit_small", 16, 21_665_664),
    ("vit_base", 16, 85_798_656),
    ("vit_large", 16, 303_301_632),
    ("vit_huge", 14, 630_764_800),
  ],
)
def test_parameters_are_the_published_ones(name, patch, parameters):
  encoder = models.make(name)
  weights = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
  table = ((224 // patch) ** 2 + 1) * encoder.module.width
  assert encoder.module.patch == patch
  assert count(weights.params) + table == parameters


def test_learned_positions_are_parameters():
  shapes = [
    jax.eval_shape(make(positions=p).init, jax.random.key(0), IMAGES).params for p in ("sincos", "learned")
  ]
  assert count(shapes[1]) - count(shapes[0]) == 16 * 16


def test_forward_pass_is_the_papers():
  encoder = make()
  weights = weights_of(encoder)
  plain = jax.device_get(weights.params)
  features, state = encoder.apply(weights, IMAGES)
  expected = np.stack([transformer.encode(np.asarray(image), plain, 2, 4) for image in IMAGES])
  np.testing.assert_allclose(features, expected[:, 0], atol=1e-5)
  np.testing.assert_allclose(make(pool="mean").apply(weights, IMAGES)[0], expected[:, 1:].mean(1), atol=1e-5)
  assert features.dtype == jnp.float32 and not jax.tree.leaves(state)


def test_all_patches_visible_in_any_order_are_the_plain_tokens():
  encoder = models.make("vit", **TINY)
  weights = weights_of(make())
  order = patches.random_order(jax.random.key(3), 4, (4, 4), 0.5)
  tokens, _ = jax.jit(encoder.apply)(weights, IMAGES, visible=order)
  assert tokens.shape == (4, 17, 16)
  unshuffled = patches.take_patches(tokens[:, 1:], jnp.argsort(order, axis=1))
  features, _ = make().apply(weights, IMAGES)
  np.testing.assert_allclose(tokens[:, 0], features, atol=1e-5)
  np.testing.assert_allclose(unshuffled.mean(1), make(pool="mean").apply(weights, IMAGES)[0], atol=1e-5)


def test_hidden_patches_are_not_seen():
  encoder = models.make("vit", **TINY)
  weights = weights_of(make())
  visible = jnp.tile(jnp.array([[5, 0, 10]]), (4, 1))
  changed = IMAGES.at[:, :4, 4:8].set(0.0)  # patch 1
  look = jax.jit(lambda images: encoder.apply(weights, images, visible=visible)[0])
  np.testing.assert_array_equal(look(IMAGES), look(changed))
  assert np.abs(look(IMAGES) - look(IMAGES.at[:, 4:8, 4:8].set(0.0))).max() > 1e-3  # patch 5


@pytest.mark.parametrize("positions", ["sincos_trained", "learned"])
def test_trained_positions_of_visible_patches_get_their_gradient(positions):
  encoder = models.make("vit", **TINY, positions=positions)
  weights = encoder.init(jax.random.key(0), IMAGES)
  visible = jnp.tile(jnp.array([[5, 0]]), (4, 1))
  loss = lambda params: (encoder.apply(Weights(params, {}), IMAGES, visible=visible)[0] ** 3).sum()
  moved = np.flatnonzero(np.abs(jax.jit(jax.grad(loss))(weights.params)["positions"]).sum(1))
  np.testing.assert_array_equal(moved, [0, 5])


def gradient_of(encoder, weights):
  loss = lambda params: (encoder.apply(Weights(params, {}), IMAGES, train=True)[0] ** 2).sum()
  return jax.value_and_grad(loss)(weights.params)


@pytest.mark.parametrize(
  "options",
  [
    dict(layers="scan"),
    dict(layers="scan", remat="dots"),
    dict(layers="scan", remat="full"),
    dict(remat="full"),
  ],
  ids=str,
)
def test_scanned_unrolled_and_recomputed_layers_agree(options):
  encoder, other = make(layers="unroll"), make(**options)
  weights = weights_of(encoder)
  (value, gradient), (value_too, gradient_too) = (gradient_of(e, weights) for e in (encoder, other))
  np.testing.assert_allclose(value, value_too, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), gradient, gradient_too)


def test_recomputing_all_but_dense_layers_repeats_only_the_products_of_attention():
  """Checks that the remat policy keeps the outputs of our dense layers.

  A policy that does not recognise them keeps none, which costs a quarter more FLOPs and changes no result.
  """

  def products(remat):
    encoder = make(layers="unroll", remat=remat, depth=1)
    lowered = jax.jit(functools.partial(gradient_of, encoder)).lower(weights_of(encoder))
    return lowered.compiler_ir("hlo").as_hlo_text().count(" dot(")

  assert products("dots") == products("none") + 2
  assert (
    products("full") == products("none") + 5
  )  # the backward pass does not need the last product of a block


def test_layers_are_initialised_apart_and_within_xaviers_bound():
  params = make().init(jax.random.key(0), IMAGES).params
  kernel = np.asarray(params["blocks"]["block"]["attention"]["qkv"]["kernel"])
  assert np.abs(kernel[0] - kernel[1]).max() > 0.01
  bound = np.sqrt(6 / (16 + 48))
  assert 0.95 * bound < np.abs(kernel).max() <= bound
  embed = np.asarray(
    params["embed"]["kernel"]
  )  # MAE initialises the patch convolution as the matrix [out, p * p * 3]
  assert 0.95 * np.sqrt(6 / (48 + 16)) < np.abs(embed).max() <= np.sqrt(6 / (48 + 16))
  for name, leaf in params["blocks"]["block"]["norm1"].items():
    np.testing.assert_array_equal(leaf, np.full_like(leaf, 1.0 if name == "scale" else 0.0))


def test_bfloat16_computes_near_and_returns_float32():
  weights = weights_of(make(), 0.1)
  features, _ = make(dtype="bfloat16").apply(weights, IMAGES)
  exact, _ = make().apply(weights, IMAGES)
  assert features.dtype == jnp.float32
  np.testing.assert_allclose(features, exact, atol=0.15)
  assert np.abs(features - exact).max() > 0


def test_pyramid_holds_every_block_as_a_map():
  encoder = make()
  weights = weights_of(encoder)
  maps, _ = encoder.apply(weights, IMAGES, pyramid=True)
  assert list(maps) == ["block1", "block2", "block3"]
  assert all(m.shape == (4, 4, 4, 16) for m in maps.values())
  plain = jax.device_get(weights.params)
  last = transformer.norm(np.asarray(maps["block3"], np.float64), plain["norm"]).mean((1, 2))
  np.testing.assert_allclose(make(pool="mean").apply(weights, IMAGES)[0], last, atol=1e-5)


def test_fc_norm_comes_behind_the_mean():
  encoder = make(pool="fc_norm")
  weights = weights_of(encoder)
  assert "norm" not in weights.params
  maps, _ = encoder.apply(weights, IMAGES, pyramid=True)
  plain = jax.device_get(weights.params)
  expected = transformer.norm(np.asarray(maps["block3"], np.float64).mean((1, 2)), plain["fc_norm"])
  np.testing.assert_allclose(encoder.apply(weights, IMAGES)[0], expected, atol=1e-5)


def test_positions_are_interpolated_for_another_size():
  trained, larger = (
    make(positions="learned", image_size=16),
    jax.random.uniform(jax.random.key(5), (2, 32, 32, 3)),
  )
  weights = weights_of(trained)
  assert weights.params["positions"].shape == (16, 16)
  flat = Weights({**weights.params, "positions": jnp.ones((16, 16)) * jnp.arange(16.0)[None]}, {})
  table = jnp.ones((64, 16)) * jnp.arange(16.0)[None]  # interpolation does not change a constant table
  direct = make(positions="learned")
  np.testing.assert_allclose(
    trained.apply(flat, larger)[0],
    direct.apply(Weights({**flat.params, "positions": table}, {}), larger)[0],
    atol=1e-4,
  )
  fixed = make(image_size=16).apply(weights_of(make()), larger)[0]
  assert np.isfinite(fixed).all() and np.abs(fixed - make().apply(weights_of(make()), larger)[0]).max() > 1e-3


def test_positions_follow_mae_unless_antialiased_and_equal_bits_at_the_size_of_the_table():
  weights, larger = weights_of(make(image_size=16)), jax.random.uniform(jax.random.key(5), (2, 24, 24, 3))
  plain, smooth = (make(image_size=16, antialias_positions=antialias) for antialias in (False, True))
  free = make(positions="learned")

  def with_table(table):
    return free.apply(Weights({**weights.params, "positions": table}, {}), larger)[0]

  fixed = jnp.asarray(patches.sincos_positions((4, 4), 16))
  for encoder, antialias in ((plain, False), (smooth, True)):
    table = patches.resize_positions(fixed, (4, 4), (6, 6), antialias=antialias)
    np.testing.assert_allclose(encoder.apply(weights, larger)[0], with_table(table), atol=1e-5)
  assert np.abs(plain.apply(weights, larger)[0] - smooth.apply(weights, larger)[0]).max() > 1e-3
  for encoder in (plain, smooth):
    np.testing.assert_array_equal(encoder.apply(weights, IMAGES)[0], make().apply(weights, IMAGES)[0])


def test_drop_path_drops_whole_branches_and_keeps_their_mean():
  encoder = models.make("vit", **{**TINY, "depth": 2}, drop_path=0.5)  # rates 0 and 0.5
  weights = weights_of(make(depth=2))
  run = jax.jit(lambda key: encoder.apply(weights, IMAGES[:1], train=True, key=key)[0][0])
  found = np.stack([run(jax.random.key(seed)) for seed in range(40)])
  # Four results: attention and MLP of the second block are each kept or dropped.
  assert len(np.unique(found.round(4), axis=0)) == 4
  evaluated, _ = encoder.apply(weights, IMAGES[:1])
  np.testing.assert_allclose(evaluated, make(depth=2).apply(weights, IMAGES[:1])[0], atol=1e-6)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(heads=3), "config.encoder.heads 3 does not divide config.encoder.width 16; use 2 or 4 heads"),
    (dict(heads=32), "config.encoder.heads 32 does not divide config.encoder.width 16; use 16 or 8 heads"),
    (dict(heads=0), "heads 0 and patch 4 must be positive"),
    (dict(drop_path=1.0), r"drop_path is 1.0; use a rate in \[0, 1\)"),
    (dict(image_size=30), "image_size 30 does not divide into patches of 4; use 32"),
    (dict(pool="max"), "config.encoder.pool is 'max'; did you mean 'mean'. known: cls, fc_norm, mean"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    models.make("vit", **{**TINY, **options})


def test_image_that_does_not_divide_is_refused_before_compiling():
  with pytest.raises(
    ValueError, match="images of 18 x 18 do not divide into patches of config.encoder.patch 4"
  ):
    jax.eval_shape(make().init, jax.random.key(0), jnp.zeros((1, 18, 18, 3)))


def test_gelu_is_the_exact_one_and_its_gradient_keeps_its_input_alone():
  x = jnp.linspace(-6, 6, 4801)
  plain = lambda x: 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))
  np.testing.assert_allclose(gelu(x), plain(x), atol=1e-6)
  pull = lambda function: jax.vjp(function, x)[1](jnp.cos(x))[0]
  np.testing.assert_allclose(pull(gelu), pull(plain), atol=2e-6)
  kept = [leaf for leaf in jax.tree.leaves(jax.vjp(gelu, x)[1]) if leaf.size == x.size]
  assert len(kept) == 1
  np.testing.assert_array_equal(kept[0], x)


@pytest.mark.parametrize("biased", [False, True])
def test_attention_has_the_gradient_of_its_formula(biased):
  shapes = dict.fromkeys("qkv", (3, 2, 5, 4)) | {"b": (1, 2, 5, 5)}
  query, key, value, bias = (
    jax.random.normal(jax.random.key(number), shape) for number, shape in enumerate(shapes.values())
  )

  def plain(query, key, value, bias):
    logits = query @ key.swapaxes(2, 3) + (bias if biased else 0.0)
    weights = jnp.exp(logits) / jnp.exp(logits).sum(-1, keepdims=True)
    return weights @ value

  ours = lambda query, key, value, bias: attend(query, key, value, bias if biased else None)
  gradients = lambda function: jax.grad(lambda *given: jnp.sin(function(*given)).sum(), (0, 1, 2, 3))(
    query, key, value, bias
  )
  np.testing.assert_allclose(ours(query, key, value, bias), plain(query, key, value, bias), atol=1e-5)
  for found, wanted in zip(gradients(ours), gradients(plain)):
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("rows", [(6,), (2, 3)])
def test_dense_is_a_dense_layer_with_its_gradient(rows):
  shapes = [(*rows, 5), (5, 4), (4,)]
  x, kernel, bias = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
  np.testing.assert_allclose(
    dense(x, kernel, bias), np.asarray(x) @ np.asarray(kernel) + np.asarray(bias), rtol=1e-5
  )
  loss = lambda layer: jax.grad(lambda *a: jnp.sin(layer(*a)).sum(), (0, 1, 2))(x, kernel, bias)
  ours, plain = loss(dense), loss(lambda x, k, b: (x.reshape(6, 5) @ k + b[None]).reshape(*rows, 4))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, plain)
  batched = jax.vmap(lambda k: jax.grad(lambda k: jnp.sin(dense(x, k, bias)).sum())(k))(
    jnp.stack([kernel, 2 * kernel])
  )
  np.testing.assert_allclose(batched[0], ours[1], rtol=1e-5, atol=1e-6)
  assert Dense(4).apply({"params": {"kernel": kernel, "bias": bias}}, x[None]).shape == (1, *rows, 4)


def test_a_classifier_on_top_has_the_published_size():
  classifier = stack(
    models.make("vit_base", pool="fc_norm", positions="sincos_trained"), network(heads.Linear(1000))
  )
  weights = jax.eval_shape(classifier.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
  # timm's vit_base_patch16_224; its class token has a position of 768 numbers, which ours lacks.
  assert count(weights.params) + 768 == 86_567_656
