"""Compares samplers with the published statistics, and cropping with Pillow in float and jax.image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssl_jax.augment import crops, resample
from ssl_jax.augment.crops import Box

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@functools.cache
def drawer(sampler):
  one = lambda key, height, width, scale: sampler(key, height, width, scale=scale)
  return jax.jit(jax.vmap(one, (0, None, None, None)))


@functools.cache
def boxes(sampler, height, width, scale=(0.08, 1.0)):
  """Draws 100,000 boxes; the sampler is compiled once for all image sizes."""
  keys = jax.random.split(jax.random.key(0), 100_000)
  return jax.tree.map(np.asarray, drawer(sampler)(keys, height, width, scale))


def areas(box: Box, height: int, width: int) -> np.ndarray:
  assert (box.top >= 0).all() and (box.left >= 0).all() and (box.height > 0).all() and (box.width > 0).all()
  assert (box.top + box.height <= height).all() and (box.left + box.width <= width).all()
  return box.height * box.width / (height * width)


@pytest.mark.parametrize(
  "sampler, height, width, scale, mean",
  (
    (crops.sample_crop_pt, 256, 256, (0.08, 1.0), 0.479),
    (crops.sample_crop_tf, 256, 256, (0.08, 1.0), 0.423),
    (crops.sample_crop_pt, 375, 500, (0.08, 1.0), 0.432),
    (crops.sample_crop_tf, 375, 500, (0.08, 1.0), 0.387),
    (crops.sample_crop_pt, 256, 256, (0.2, 1.0), 0.541),
    (crops.sample_crop_pt, 375, 500, (0.2, 1.0), 0.496),
  ),
)
def test_mean_area_is_the_published_samplers(sampler, height, width, scale, mean):
  assert abs(areas(boxes(sampler, height, width, scale=scale), height, width).mean() - mean) < 0.005


def test_area_quantiles():
  pt, tf = (areas(boxes(s, 256, 256), 256, 256) for s in (crops.sample_crop_pt, crops.sample_crop_tf))
  assert abs(np.median(pt) - 0.477) < 0.005 and abs((pt < 0.1).mean() - 0.025) < 0.005
  assert abs(np.median(tf) - 0.390) < 0.005 and tf.min() >= 0.1


def test_places_are_uniform_and_tensorflow_never_draws_the_last():
  pt, tf = (boxes(s, 32, 32) for s in (crops.sample_crop_pt, crops.sample_crop_tf))
  room = (32 - pt.height) == 6
  assert np.array_equal(np.unique(pt.top[room]), np.arange(7))
  counts = np.bincount(pt.top[room])
  assert counts.min() > 0.8 * counts.mean()
  assert np.array_equal(np.unique(tf.top[(32 - tf.height) == 6]), np.arange(6))


def test_a_ratio_that_never_fits_falls_back_to_the_largest_centred_box():
  wide = boxes(crops.sample_crop_pt, 20, 400, scale=(0.9, 1.0))
  assert (
    set(wide.height) == {20} and set(wide.width) == {27} and set(wide.left) == {186} and set(wide.top) == {0}
  )
  tall = boxes(crops.sample_crop_pt, 400, 20, scale=(0.9, 1.0))
  assert set(tall.height) == {27} and set(tall.width) == {20} and set(tall.top) == {186}
  whole = boxes(crops.sample_crop_tf, 20, 400, scale=(0.9, 1.0))
  assert set(whole.height) == {20} and set(whole.width) == {400}


def test_byol_sampler_cuts_to_fit():
  one = areas(boxes(crops.sample_crop_byol, 256, 256), 256, 256)
  first = boxes(crops.sample_crop_byol, 20, 400)
  areas(first, 20, 400)
  assert (first.height == 20).mean() > 0.9  # torchvision would have tried again
  assert 0.5 < one.mean() < 0.54  # no rejection: close to the mean of U(0.08, 1)


def test_the_local_crop_lies_in_the_global_one():
  draw = jax.vmap(lambda key: crops.sample_global_local(key, 90, 120))
  outer, inner = jax.tree.map(np.asarray, jax.jit(draw)(jax.random.split(jax.random.key(0), 5000)))
  areas(outer, 90, 120)
  assert (inner.top >= outer.top).all() and (inner.left >= outer.left).all()
  assert (inner.top + inner.height <= outer.top + outer.height).all()
  assert (inner.left + inner.width <= outer.left + outer.width).all()
  fraction = inner.height * inner.width / (outer.height * outer.width)
  assert 0.06 < fraction.min() and fraction.max() < 0.42 and 0.2 < fraction.mean() < 0.28


def test_adjacent_crops_touch_and_do_not_overlap():
  draw = jax.vmap(lambda key: crops.sample_adjacent(key, 90, 120))
  a, b = jax.tree.map(np.asarray, jax.jit(draw)(jax.random.split(jax.random.key(0), 5000)))
  areas(a, 90, 120), areas(b, 90, 120)
  assert (a.height == b.height).all() and (a.width == b.width).all()
  beside = (a.top == b.top) & (np.abs(a.left - b.left) == a.width)
  above = (a.left == b.left) & (np.abs(a.top - b.top) == a.height)
  assert (beside ^ above).all() and 0.4 < beside.mean() < 0.6
  assert 0.4 < (a.left[beside] < b.left[beside]).mean() < 0.6


def pillow(image, box, shape, method, flip=False):
  """Crops and then resizes in float, one channel at a time: Pillow's arithmetic without its rounding."""
  top, left, height, width = map(int, box)
  channels = [
    np.asarray(
      Image.fromarray(image[top : top + height, left : left + width, c]).resize(
        shape[::-1], RESAMPLING[method]
      )
    )
    for c in range(3)
  ]
  out = np.clip(np.stack(channels, 2), 0, 1)
  return out[:, ::-1] if flip else out


@pytest.mark.parametrize("method, size", (("bilinear", 8), ("bicubic", 8), ("bicubic", 32)))
def test_crop_resize_is_pillows_crop_then_resize(photo, method, size):
  image = photo.astype(np.float32) / 255
  cut = jax.jit(functools.partial(crops.crop_resize, size=size, method=method))
  for box, flip in (
    ((0, 0, 40, 60), False),
    ((3, 7, 9, 11), False),
    ((30, 1, 10, 59), True),
    ((5, 50, 33, 1), True),
  ):
    traced = Box(*map(jnp.asarray, box))
    np.testing.assert_allclose(
      cut(image, traced, flip=flip), pillow(image, box, (size, size), method, flip), atol=2e-5
    )


@pytest.mark.parametrize("method, size", (("bilinear", 8), ("bicubic", 8), ("bicubic", 40)))
def test_without_antialiasing_it_is_tensorflow_2(photo, method, size):
  image = jnp.asarray(photo.astype(np.float32) / 255)
  box = Box(*map(jnp.asarray, (4, 6, 30, 31)))
  kind = "cubic" if method == "bicubic" else "linear"
  wanted = jax.image.resize(image[4:34, 6:37], (size, size, 3), kind, antialias=False)
  cut = jax.jit(functools.partial(crops.crop_resize, size=size, method=method, antialias=False))
  np.testing.assert_allclose(cut(image, box), jnp.clip(wanted, 0, 1), atol=2e-5)


def test_crop_resize_survives_vmap_and_reads_uint8(photo):
  cut = functools.partial(crops.crop_resize, size=16)
  many = Box(*(jnp.array(v) for v in ((0, 5, 9), (1, 6, 20), (20, 9, 31), (33, 18, 40))))
  flips = jnp.array([True, False, True])
  batched = jax.jit(jax.vmap(lambda box, flip: cut(photo, box, flip=flip)))(many, flips)
  one = jax.jit(lambda box, flip: cut(photo.astype(np.float32) / 255, box, flip=flip))
  single = [one(Box(*(side[i] for side in many)), flips[i]) for i in range(3)]
  np.testing.assert_allclose(batched, jnp.stack(single), atol=1e-6)


@pytest.mark.parametrize("method, antialias", (("bilinear", True), ("bicubic", False)))
def test_accelerators_resample_as_cpus_do(photo, method, antialias):
  planes = photo.transpose(2, 0, 1)
  taps = functools.partial(resample.crop_taps, size=16, method=method, antialias=antialias)
  rows, columns = taps(3, 35, full=40), taps(10, 21, full=60, flip=True)
  np.testing.assert_allclose(
    jax.jit(resample._resample_by_matmul)(rows, columns, planes) / 255,
    jax.jit(resample._resample_by_gathering)(rows, columns, planes) / 255,
    atol=1e-6,
  )


def test_resize_and_center_crop(photo):
  image = photo.astype(np.float32) / 255
  resize = jax.jit(crops.resize, static_argnames=("size", "method"))
  np.testing.assert_allclose(
    resize(photo, 25), pillow(image, (0, 0, 40, 60), (25, 37), "bilinear"), atol=2e-5
  )
  upright = photo.transpose(1, 0, 2).copy()
  assert jax.eval_shape(lambda x: crops.resize(x, 25), upright).shape == (37, 25, 3)
  np.testing.assert_array_equal(crops.center_crop(photo, 33), photo[4:37, 14:47])
  with pytest.raises(
    ValueError, match="a centre crop of 41 does not fit an image of 40 x 60; resize it first"
  ):
    crops.center_crop(photo, 41)


def test_evaluation_view(photo, square):
  image = photo.astype(np.float32) / 255
  wanted = pillow(image, (2, 12, 35, 35), (24, 24), "bicubic")
  np.testing.assert_allclose(jax.jit(lambda x: crops.evaluation_view(x, size=24))(photo), wanted, atol=2e-5)
  np.testing.assert_array_equal(crops.evaluation_view(square, size=32), square.astype(np.float32) / 255)
