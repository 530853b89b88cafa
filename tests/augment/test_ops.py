"""Compares each operation with an independent reference on a photograph: Pillow, scipy, colorsys or numpy."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scipy import ndimage, optimize

from ssl_jax.augment import blur, colour, crops, ops

LEVEL = 1 / 255  # Pillow rounds to whole grey levels after every operation
FACTORS = (0.0, 0.4, 1.0, 1.7)


def unit(image: np.ndarray) -> np.ndarray:
  return np.asarray(image, np.float32) / 255


def by_pixel(image: np.ndarray, function) -> np.ndarray:
  """Applies `function` to the (hue, saturation, value) of each pixel and converts back to RGB."""
  out = [
    colorsys.hsv_to_rgb(*function(*colorsys.rgb_to_hsv(*map(float, pixel)))) for pixel in image.reshape(-1, 3)
  ]
  return np.reshape(out, image.shape)


def same(actual, wanted, tolerance=2e-5):
  np.testing.assert_allclose(np.asarray(actual), np.asarray(wanted), rtol=0, atol=tolerance)


def same_as_pillow(operation, enhancer, image, factor):
  wanted = unit(enhancer(Image.fromarray(image)).enhance(factor))
  same(operation(unit(image), factor), wanted, 1.6 * LEVEL)


@pytest.mark.parametrize("factor", FACTORS)
def test_torchvision_colours_are_pillows(photo, factor):
  same_as_pillow(jax.jit(ops.adjust_brightness), ImageEnhance.Brightness, photo, factor)
  same_as_pillow(jax.jit(ops.adjust_contrast), ImageEnhance.Contrast, photo, factor)
  same_as_pillow(jax.jit(ops.adjust_saturation), ImageEnhance.Color, photo, factor)


@pytest.mark.parametrize("factor", FACTORS)
def test_tensorflow_colours(photo, factor):
  image = unit(photo)
  means = image.mean((0, 1), keepdims=True)
  same(ops.adjust_contrast(image, factor, definition="tf"), np.clip((image - means) * factor + means, 0, 1))
  wanted = by_pixel(image, lambda h, s, v: (h, min(s * factor, 1), v))
  same(ops.adjust_saturation(image, factor, definition="tf"), wanted)
  same(ops.shift_brightness(image, factor - 1), np.clip(image + factor - 1, 0, 1))


@pytest.mark.parametrize("turns", (-0.5, -0.2, 0.0, 0.1, 0.5))
def test_hue_turns_as_in_colorsys(photo, turns):
  wanted = by_pixel(unit(photo), lambda h, s, v: ((h + turns) % 1, s, v))
  same(jax.jit(ops.adjust_hue)(unit(photo), turns), wanted)


def distorted(image: np.ndarray, draw: colour.Distortion) -> np.ndarray:
  """Photometric distortion in the published order, by numpy and colorsys."""
  out = np.clip(image + draw.brightness, 0, 1)
  out = np.clip(out * draw.contrast, 0, 1) if draw.contrast_first else out
  out = by_pixel(out, lambda h, s, v: (h, min(s * draw.saturation, 1), v))
  out = by_pixel(out, lambda h, s, v: ((h + draw.hue) % 1, s, v))
  return out if draw.contrast_first else np.clip(out * draw.contrast, 0, 1)


@pytest.mark.parametrize(
  "amounts",
  [
    (0.0, 1.0, True, 1.0, 0.0),
    (0.12, 1.4, True, 1.5, 0.1),
    (0.12, 1.4, False, 1.5, 0.1),
    (-0.12, 0.6, False, 0.5, -0.07),
    (0.1, 1.0, True, 1.0, 0.05),
    (0.0, 1.5, False, 1.3, 0.0),
  ],
)
def test_photometric_distortion_equals_colorsys(photo, amounts):
  draw = jax.tree.map(jnp.asarray, colour.Distortion(*amounts))
  found = jax.jit(colour.distort)(crops.image_to_planes(jnp.asarray(photo)), draw)
  same(crops.planes_to_image(found), distorted(unit(photo), colour.Distortion(*amounts)))
  if amounts[:2] == (0.0, 1.0):
    same(crops.planes_to_image(found), unit(photo))


def test_photometric_distortion_is_drawn_as_published():
  keys = jax.random.split(jax.random.key(0), 4000)
  draws = jax.device_get(jax.jit(jax.vmap(colour.sample_distortion))(keys))
  ranges = {
    "brightness": (-32 / 255, 32 / 255, 0.0),
    "contrast": (0.5, 1.5, 1.0),
    "saturation": (0.5, 1.5, 1.0),
    "hue": (-0.1, 0.1, 0.0),
  }
  applied = []
  for name, (least, greatest, neutral) in ranges.items():
    values = getattr(draws, name)
    on = values != neutral
    drawn = (values[on] - least) / (greatest - least)
    assert 0 <= drawn.min() < 0.01 and 0.99 < drawn.max() <= 1 + 1e-6
    assert abs(on.mean() - 0.5) < 0.03 and abs(drawn.mean() - 0.5) < 0.03 and abs(drawn.std() - 0.2887) < 0.01
    applied.append(on)
  applied.append(draws.contrast_first)
  assert np.abs(np.corrcoef(applied) - np.eye(5)).max() < 0.06 and abs(applied[-1].mean() - 0.5) < 0.03


def test_the_two_contrasts_differ_as_published():
  red = jnp.zeros((4, 4, 3)).at[..., 0].set(1.0)
  same(ops.adjust_contrast(red, 0.0, definition="tf"), red)
  same(ops.adjust_contrast(red, 0.0, definition="pt"), jnp.full((4, 4, 3), 0.299))


def test_grayscale(photo):
  same(
    ops.grayscale(unit(photo)), np.repeat(unit(Image.fromarray(photo).convert("L"))[..., None], 3, 2), LEVEL
  )
  luma = unit(photo) @ np.array([0.2989, 0.5870, 0.1140], np.float32)
  same(ops.grayscale(unit(photo), definition="tf"), np.repeat(luma[..., None], 3, 2))


def test_flip_rotate_cutout(square):
  image = unit(square)
  same(ops.flip(image), np.asarray(Image.fromarray(square).transpose(Image.Transpose.FLIP_LEFT_RIGHT)) / 255)
  for quarters in range(4):
    np.testing.assert_array_equal(jax.jit(ops.rotate)(image, quarters), np.rot90(image, quarters))
  wanted = image.copy()
  wanted[0:6, 22:32] = 0.5
  np.testing.assert_array_equal(ops.cutout(image, 1, 27, side=10, fill=0.5), wanted)


def test_sobel(photo):
  channels = unit(photo).transpose(2, 0, 1)
  edges = lambda axis: np.stack([ndimage.sobel(channel, axis, mode="mirror") for channel in channels], 2)
  wanted = np.hypot(edges(0), edges(1))
  same(ops.sobel(unit(photo)), wanted / wanted.max())
  same(ops.sobel(jnp.full((5, 5, 3), 0.3)), jnp.zeros((5, 5, 3)))


def test_noise_is_normal_and_clipped():
  noisy = np.asarray(ops.random_noise(jax.random.key(0), jnp.full((64, 64, 3), 0.5)))
  assert abs(noisy.mean() - 0.5) < 0.005 and abs(noisy.std() - 0.1) < 0.003
  assert ops.add_noise(jnp.ones((2, 2, 3)), jnp.ones((2, 2, 3))).max() == 1


@pytest.mark.parametrize("sigma", (0.1, 0.5, 0.9, 1.3, 2.0))
def test_torchvision_blur_is_pillows(photo, sigma):
  error = np.abs(
    BLUR(unit(photo), sigma) - unit(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(sigma)))
  )
  assert error.max() < 3 * LEVEL and error.mean() < 0.5 * LEVEL  # Pillow rounds in each of six passes


@pytest.mark.parametrize("sigma", (0.1, 0.9, 2.0))
def test_torchvision_blur_is_three_boxes_with_the_edge_repeated_in_each(photo, sigma):
  """Pillow's algorithm without its rounding: boxes of variance sigma^2 / 3 with two smaller outer taps."""
  variance = lambda alpha, inner: (
    (2 * sum(k * k for k in range(1, inner + 1)) + 2 * alpha * (inner + 1) ** 2) / (2 * inner + 1 + 2 * alpha)
    - sigma**2 / 3
  )
  inner = max(i for i in range(4) if variance(0, i) <= 0)
  alpha = optimize.brentq(variance, 0, 1, args=(inner,))
  box = np.array([alpha, *[1.0] * (2 * inner + 1), alpha]) / (2 * inner + 1 + 2 * alpha)
  wanted = unit(photo)
  for axis in (0, 1):
    for _ in range(3):
      wanted = ndimage.correlate1d(wanted, box, axis, mode="nearest")
  same(BLUR(unit(photo), sigma), wanted, 1e-4)


@pytest.mark.parametrize("sigma", (0.1, 0.7, 2.0))
def test_tensorflow_blur_is_a_cut_off_gaussian_with_dark_borders(photo, sigma):
  wanted = unit(photo)
  for axis in (0, 1):
    wanted = ndimage.gaussian_filter1d(wanted, sigma, axis, mode="constant", radius=40 // 10 // 2)
  same(BLUR_TF(unit(photo), sigma), wanted)


def test_simclr_kernel_at_224():
  taps = np.asarray(blur.gaussian_band(1.5, 224, radius=224 // 10 // 2))[:, 100]
  assert taps.shape == (23,)
  same(taps.sum(), 1)
  same(taps, taps[::-1])
  same(blur.gaussian_band(0.1, 224, radius=11), np.eye(23)[:, 11:12] @ np.ones((1, 224)), 1e-6)


def test_blur_of_zero_changes_nothing(photo):
  same(BLUR(unit(photo), 0.0), unit(photo), 1e-7)
  for band in (blur.box_band(0.0, 9, max_sigma=2.0), blur.gaussian_band(0.0, 9, radius=3)):
    same(blur._dense(band), np.eye(9), 1e-7)


def test_accelerators_blur_as_cpus_do():
  """The image is hardly wider than the kernel, so every row is affected by the border."""
  planes = jax.random.uniform(jax.random.key(0), (3, 7, 14))
  first, second = (blur.box_band(1.7, size, max_sigma=2.0) for size in (7, 14))
  same(
    jax.jit(blur._by_matmul)(first, second, planes), jax.jit(blur._by_shifting)(first, second, planes), 1e-6
  )


ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)


@pytest.mark.parametrize("definition, additive", (("pt", False), ("tf", False), ("tf", True)))
def test_jitter_follows_every_order(square, definition, additive):
  """The CPU's and the accelerators' programs both equal the single operations, one after the other."""
  amounts = (0.3 if additive else 1.6, 0.4, 1.8, 0.3)
  steps = (
    ops.shift_brightness if additive else ops.adjust_brightness,
    lambda x, a: ops.adjust_contrast(x, a, definition=definition),
    lambda x, a: ops.adjust_saturation(x, a, definition=definition),
    ops.adjust_hue,
  )
  apply = [jax.jit(step) for step in steps]
  image = unit(square)
  wanted = []
  for order in ORDERS:
    out = image
    for step in order:
      out = apply[step](out, amounts[step])
    wanted.append(out)
  draws = colour.Jitter(ORDERS, *(np.full(24, a, np.float32) for a in amounts))
  planes = np.moveaxis(image, 2, 0)
  by_switch = jax.jit(lambda d: colour._jitter_by_switch(planes, d, definition, additive))
  in_slots = jax.jit(jax.vmap(lambda d: colour._jitter_in_slots(planes, d, definition, additive)))
  same(np.moveaxis(in_slots(draws), 1, -1), wanted)
  same(np.moveaxis([by_switch(colour.Jitter(*(x[i] for x in draws))) for i in range(24)], 1, -1), wanted)


def test_jitter_not_drawn_changes_nothing(square):
  draw = colour.sample_jitter(jax.random.key(0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=0.0)
  planes = np.moveaxis(unit(square), 2, 0)
  for jitter in (colour._jitter_by_switch, colour._jitter_in_slots):
    same(jax.jit(jitter, static_argnums=(2, 3))(planes, draw, "pt", False), planes, 1e-6)


def test_jitter_amounts_have_the_published_ranges():
  keys = jax.random.split(jax.random.key(3), 8000)
  draw = lambda **options: jax.vmap(lambda key: colour.sample_jitter(key, **options))(keys)
  got = draw(brightness=0.8, contrast=0.4, saturation=1.2, hue=0.2, p=0.8)
  for name, low, high, neutral in (
    ("brightness", 0.2, 1.8, 1),
    ("contrast", 0.6, 1.4, 1),
    ("saturation", 0, 2.2, 1),
    ("hue", -0.2, 0.2, 0),
  ):
    values = np.asarray(getattr(got, name))
    drawn = values[values != neutral]
    assert abs(len(drawn) / len(values) - 0.8) < 0.02, name
    same((drawn.min(), drawn.max(), drawn.mean()), (low, high, (low + high) / 2), 0.02 * (high - low))
  counts = np.unique(np.asarray(got.order), axis=0, return_counts=True)[1]
  assert len(counts) == 24 and counts.min() > 250 and counts.max() < 420
  shifts = np.asarray(draw(brightness=0.8, contrast=0, saturation=0, hue=0, additive=True).brightness)
  same((shifts.min(), shifts.max(), shifts.mean()), (-0.8, 0.8, 0), 0.03)


RANDOM = {name: getattr(ops, name) for name in dir(ops) if name.startswith("random_")}


def test_the_catalogue_is_complete():
  assert sorted(RANDOM) == [
    "random_cutout",
    "random_flip",
    "random_gaussian_blur",
    "random_grayscale",
    "random_jitter",
    "random_noise",
    "random_rotate",
  ]


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_random_operations_survive_jit_and_vmap_and_repeat(square, name):
  keys = jax.random.split(jax.random.key(8), 8)
  images = jnp.stack([unit(square)] * 8)
  one = jax.jit(RANDOM[name])
  many = jax.jit(jax.vmap(RANDOM[name]))(keys, images)
  assert many.shape == images.shape and many.dtype == jnp.float32
  assert many.min() >= 0 and many.max() <= 1
  same(many, [one(key, image) for key, image in zip(keys, images)], 1e-5)
  np.testing.assert_array_equal(one(keys[0], images[0]), one(keys[0], images[0]))
  assert np.unique(np.asarray(many).reshape(8, -1), axis=0).shape[0] > 1, "every key gave the same answer"


def test_probabilities():
  keys = jax.random.split(jax.random.key(1), 4000)
  image = jnp.array([[[0.1, 0.5, 0.9], [0.9, 0.2, 0.1]]])
  flipped = jax.vmap(lambda key: ops.random_flip(key, image))(keys)[:, 0, 0, 0] > 0.5
  gray = jax.vmap(lambda key: ops.random_grayscale(key, image))(keys)
  assert abs(float(flipped.mean()) - 0.5) < 0.03
  assert abs(float((gray[..., 0] == gray[..., 1]).all((1, 2)).mean()) - 0.2) < 0.03
  sigma = np.asarray(jax.vmap(blur.sample_blur)(keys))
  assert abs((sigma > 0).mean() - 0.5) < 0.03
  same((sigma[sigma > 0].min(), sigma.max()), (0.1, 2.0), 0.02)


def test_errors_name_the_cure(photo):
  with pytest.raises(ValueError, match="unknown definition 'pf'.*known: pt, tf"):
    ops.adjust_contrast(unit(photo), 1.0, definition="pf")
  with pytest.raises(ValueError, match="rotate needs a square image, but this one is 40 x 60; crop it first"):
    ops.rotate(unit(photo), 1)


BLUR = jax.jit(ops.gaussian_blur)
BLUR_TF = jax.jit(lambda image, sigma: ops.gaussian_blur(image, sigma, definition="tf"))
