"""Losses, compared with the values of the specification, closed forms and optax."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import losses

R, C = np.arange(8)[:, None], np.arange(4)[None]
Z = np.sin(1 + 1.3 * R + 0.7 * C) + 0.1 * np.cos(R * C)
QUEUE = np.cos(0.5 + 0.9 * np.arange(6)[:, None] + 1.1 * np.arange(4)[None])
FIRST, SECOND = jnp.asarray(Z[:4], jnp.float32), jnp.asarray(Z[4:], jnp.float32)
PAIRS = jnp.stack([FIRST, SECOND], axis=1)


@pytest.mark.parametrize("temperature, value", [(0.5, 1.4865806), (0.1, 3.8113075)])
def test_nt_xent_fixed_example(temperature, value):
  loss, _ = losses.nt_xent(PAIRS, temperature=temperature)
  assert loss.shape == (4, 2)
  np.testing.assert_allclose(loss.mean(), value, rtol=1e-6)


@pytest.mark.parametrize("n, temperature, value", [(4, 0.5, 0.594438), (256, 0.5, 4.248795)])
def test_nt_xent_identical_views_of_orthogonal_images(n, temperature, value):
  views = jnp.repeat(jnp.eye(n)[:, None], 2, axis=1)
  np.testing.assert_allclose(losses.nt_xent(views, temperature=temperature)[0], value, rtol=1e-5)


@pytest.mark.parametrize("n, value", [(4, 1.945910), (256, 6.236370), (4096, 9.010791)])
def test_nt_xent_collapsed(n, value):
  np.testing.assert_allclose(losses.nt_xent(jnp.ones((n, 2, 4)), temperature=0.5)[0].mean(), value, rtol=1e-5)


@pytest.mark.parametrize("width, rows", [(8, 16), (64, 33), (128, 256), (256, 100), (512, 64)])
def test_a_collapsed_network_has_no_hit(width, rows):
  """All images at one point: chance at best, although the rounding of the logits differs from sum to sum."""
  for seed in range(4):
    point = losses.unit(jax.random.normal(jax.random.key(seed), (1, width)))
    views, queue = jnp.tile(point, (rows, 1)), jnp.tile(point, (512, 1))
    assert not jax.jit(losses.info_nce)(views, views, queue, temperature=0.07)[1].any()
    assert not jax.jit(losses.nt_xent)(jnp.stack([views, views], 1), temperature=0.1)[1].any()


def test_hits_are_counted_one_by_one():
  """The partner of image 0 is nearest, that of image 1 is not; the second view of image 2 is a tie."""
  angles = np.radians([[0, 10], [90, 130], [150, 180]])
  views = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], -1), jnp.float32)
  _, hit = losses.nt_xent(views, temperature=0.1)
  np.testing.assert_array_equal(hit, [[True, True], [True, False], [False, True]])
  queue = jnp.asarray([[np.cos(a), np.sin(a)] for a in np.radians([60.0, 130.0])], jnp.float32)
  _, hit = losses.info_nce(views[:, 0], views[:, 1], queue, temperature=0.1)
  np.testing.assert_array_equal(hit, [True, False, False])


def test_nt_xent_agrees_with_optax_in_value_and_gradient():
  own = lambda z: losses.nt_xent(z, temperature=0.2)[0].mean()
  labels = jnp.tile(jnp.arange(4), 2)
  theirs = lambda z: optax.losses.ntxent(jnp.concatenate([z[:, 0], z[:, 1]]), labels, temperature=0.2)
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    expected, gradient = jax.value_and_grad(theirs)(PAIRS)
  chex.assert_trees_all_close(jax.value_and_grad(own)(PAIRS), (expected, gradient), rtol=1e-4, atol=1e-5)


def test_nt_xent_symmetries():
  loss = losses.nt_xent(PAIRS, temperature=0.3)[0]
  turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
  np.testing.assert_allclose(losses.nt_xent(PAIRS[:, ::-1], temperature=0.3)[0][:, ::-1], loss, rtol=1e-5)
  np.testing.assert_allclose(losses.nt_xent(PAIRS[::-1], temperature=0.3)[0][::-1], loss, rtol=1e-5)
  turned = PAIRS @ jnp.asarray(turn, jnp.float32)
  np.testing.assert_allclose(losses.nt_xent(turned, temperature=0.3)[0], loss, rtol=1e-4)


def test_nt_xent_has_gradient_through_negatives():
  def first_image_only(others, stop):
    others = jax.lax.stop_gradient(others) if stop else others
    return losses.nt_xent(jnp.concatenate([PAIRS[:1], others]), temperature=0.3)[0][0].sum()

  assert np.abs(jax.grad(first_image_only)(PAIRS[1:], False)).max() > 1e-3


@pytest.mark.parametrize("temperature, value", [(0.07, 6.1008962), (0.2, 2.4607927)])
def test_info_nce_fixed_example(temperature, value):
  query, keys, queue = map(losses.unit, (FIRST, SECOND, jnp.asarray(QUEUE, jnp.float32)))
  loss, _ = losses.info_nce(query, keys, queue, temperature=temperature)
  np.testing.assert_allclose(loss.mean(), value, rtol=1e-6)


@pytest.mark.parametrize("queue, value", [(65536, 11.090370), (60000, 11.002117), (4096, 8.318010)])
def test_info_nce_collapsed_is_log_of_choices(queue, value):
  ones = losses.unit(jnp.ones((2, 8)))
  loss, hit = losses.info_nce(ones, ones, losses.unit(jnp.ones((queue, 8))), temperature=0.07)
  np.testing.assert_allclose(loss, value, rtol=1e-6)


@pytest.mark.parametrize(
  "queue, temperature, value", [(65536, 0.07, 0.040135), (60000, 0.07, 0.036807), (65536, 0.2, 6.092617)]
)
def test_info_nce_perfect_positive(queue, temperature, value):
  query, other = jnp.eye(2)[:1], jnp.tile(jnp.eye(2)[1:], (queue, 1))
  loss, hit = losses.info_nce(query, query, other, temperature=temperature)
  np.testing.assert_allclose(loss, value, rtol=1e-4)
  assert hit.all()


def test_info_nce_gives_keys_and_queue_no_gradient_and_survives_extremes():
  query, keys, queue = map(losses.unit, (FIRST, SECOND, jnp.asarray(QUEUE, jnp.float32)))
  function = lambda q, k, n: losses.info_nce(q, k, n, temperature=1e-3)[0].mean()
  gradient = jax.grad(function, argnums=(0, 1, 2))(query, keys, queue)
  assert np.isfinite(gradient[0]).all() and np.abs(gradient[0]).max() > 0
  assert not gradient[1].any() and not gradient[2].any()


def test_info_nce_refuses_other_widths():
  with pytest.raises(
    ValueError, match=r"query \(2, 3\), keys \(2, 3\) and negatives \(5, 4\) differ in width"
  ):
    losses.info_nce(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones((5, 4)), temperature=0.1)


def test_info_nce_makes_one_array_of_logits():
  batch, queue = 256, 65536
  shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((batch, 128), (batch, 128), (queue, 128))]
  function = jax.jit(jax.value_and_grad(lambda q, k, n: losses.info_nce(q, k, n, temperature=0.2)[0].mean()))
  used = function.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
  assert used <= 1.05 * batch * queue * 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_agrees_with_optax(smoothing):
  logits, labels = jnp.asarray(Z, jnp.float32), jnp.arange(8) % 4
  target = optax.smooth_labels(jax.nn.one_hot(labels, 4), smoothing)
  np.testing.assert_allclose(
    losses.cross_entropy(logits, labels, smoothing=smoothing),
    optax.softmax_cross_entropy(logits, target),
    rtol=1e-5,
  )


# One row of four pixels with three classes: certain, even between two, even between three, without a class.
PIXELS = jnp.log(jnp.array([[[[1.0, 1e-30, 1e-30], [1.0, 1.0, 1e-30], [2.0, 2.0, 2.0], [7.0, 1.0, 1.0]]]]))
PIXEL_LABELS = jnp.array([[[0, 1, 2, 255]]], jnp.uint8)


@pytest.mark.parametrize("shift", [0.0, 300.0, -1e4])
def test_pixel_cross_entropy_by_hand(shift):
  loss, valid = losses.pixel_cross_entropy(PIXELS + shift, PIXEL_LABELS)
  assert loss.dtype == jnp.float32 and valid.tolist() == [[[True, True, True, False]]]
  np.testing.assert_allclose(loss, [[[0, np.log(2), np.log(3), 0]]], atol=1e-7 if not shift else 2e-3)
  gradient = jax.grad(lambda x: losses.pixel_cross_entropy(x, PIXEL_LABELS)[0].sum())(PIXELS + shift)
  wanted = [[0, 0, 0], [1 / 2, -1 / 2, 0], [1 / 3, 1 / 3, -2 / 3], [0, 0, 0]]
  np.testing.assert_allclose(gradient[0, 0], wanted, atol=1e-6 if not shift else 2e-3)


def test_pixel_cross_entropy_is_cross_entropy_without_the_ignored():
  draw = np.random.default_rng(0)
  logits = jnp.asarray(4 * draw.normal(size=(2, 5, 6, 7)), jnp.float32)
  labels = draw.integers(0, 7, (2, 5, 6)).astype(np.uint8)
  labels[draw.random(labels.shape) < 0.3] = 255
  loss, valid = jax.jit(losses.pixel_cross_entropy)(logits, jnp.asarray(labels))
  np.testing.assert_array_equal(valid, labels != 255)
  wanted = losses.cross_entropy(logits[valid], jnp.asarray(labels[valid], jnp.int32))
  np.testing.assert_allclose(loss[valid], wanted, rtol=1e-5, atol=1e-6)
  assert not loss[~valid].any()
  low = losses.pixel_cross_entropy(logits.astype(jnp.bfloat16), jnp.asarray(labels))[0]
  assert low.dtype == jnp.float32
  np.testing.assert_allclose(low, loss, atol=0.1)


def test_a_batch_without_classes_has_no_loss_and_no_gradient():
  labels = jnp.full((1, 1, 4), 255, jnp.uint8)
  loss, valid = losses.pixel_cross_entropy(PIXELS, labels)
  gradient = jax.grad(lambda x: losses.pixel_cross_entropy(x, labels)[0].sum())(PIXELS)
  assert not valid.any() and not loss.any() and not gradient.any()  # nan would count as any


@pytest.mark.parametrize("label", [3, 254, -1])
def test_labels_out_of_range_are_not_silent(label):
  loss, _ = losses.pixel_cross_entropy(PIXELS, jnp.array([[[0, 1, label, 255]]], jnp.int32))
  assert np.isnan(loss).tolist() == [[[False, False, True, False]]]


def test_pixel_cross_entropy_makes_one_array_of_logits():
  logits = jax.ShapeDtypeStruct((2, 64, 64, 150), jnp.float32)
  labels = jax.ShapeDtypeStruct((2, 64, 64), jnp.uint8)
  function = jax.jit(jax.value_and_grad(lambda x, y: losses.pixel_cross_entropy(x, y)[0].mean()))
  used = function.lower(logits, labels).compile().memory_analysis().temp_size_in_bytes
  assert used <= 1.1 * logits.size * 4


def test_unit_of_zero_is_zero_with_finite_gradient():
  assert not losses.unit(jnp.zeros((2, 3))).any()
  assert np.isfinite(jax.grad(lambda x: losses.unit(x).sum())(jnp.zeros((2, 3)))).all()


def test_patch_error_is_the_mean_square_of_each_patch():
  predicted, target = (
    jnp.array([[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]]),
    jnp.array([[[1.0, 0.0, 3.0], [3.0, 0.0, 0.0]]]),
  )
  np.testing.assert_allclose(losses.patch_error(predicted, target), [[4 / 3, 3.0]], rtol=1e-6)


def test_patch_statistics_use_the_unbiased_variance():
  mean, deviation = losses.patch_statistics(jnp.array([[[1.0, 2.0, 3.0, 6.0]]]))
  np.testing.assert_allclose((mean[0, 0, 0], deviation[0, 0, 0]), (3.0, np.sqrt(14 / 3 + 1e-6)), rtol=1e-6)


def test_channel_mean_is_a_patch_of_the_images_mean_colour():
  # Two patches of two pixels.
  rows = jnp.array([[[0.0, 1.0, 2.0, 2.0, 3.0, 4.0], [4.0, 5.0, 6.0, 6.0, 7.0, 8.0]]])
  np.testing.assert_allclose(losses.channel_mean(rows), [[[3.0, 4.0, 5.0, 3.0, 4.0, 5.0]]])
