"""Compares RandAugment's operations with Pillow's on the same bytes; draw frequencies; random erasing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ssl_jax.augment import randaugment
from ssl_jax.augment.randaugment import FILL, OPERATIONS

HEIGHT, WIDTH = 24, 32
_noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))
_ramp = np.add.outer(np.arange(HEIGHT) * 4, np.arange(WIDTH) * 3)[..., None] + np.array([10, 40, 20])
IMAGE = (0.3 * _noise + 0.7 * _ramp).clip(0, 255).astype(np.uint8)


@functools.cache
def operation():
  return jax.jit(randaugment.operate)


def ours(name: str, amount: float, negative: bool, cubic: bool) -> np.ndarray:
  values = jnp.asarray(IMAGE.transpose(2, 1, 0), jnp.float32)
  made = operation()(values, jnp.int32(OPERATIONS.index(name)), jnp.float32(amount), negative, cubic)
  return np.asarray(made).transpose(2, 1, 0)


def pillow(name: str, amount: float, negative: bool, cubic: bool) -> np.ndarray:
  """Applies the Pillow operation with the arguments that timm passes."""
  image, level = Image.fromarray(IMAGE), (-1 if negative else 1) * amount / 10
  factor = max(0.1, 1 + 0.9 * level)
  fill, kind = tuple(map(int, FILL)), Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
  affine = lambda *matrix: image.transform(image.size, Image.Transform.AFFINE, matrix, kind, fillcolor=fill)
  add = min(128, int(110 * amount / 10))
  made = {
    "auto_contrast": lambda: ImageOps.autocontrast(image),
    "equalize": lambda: ImageOps.equalize(image),
    "invert": lambda: ImageOps.invert(image),
    "posterize": lambda: ImageOps.posterize(image, 4 - int(amount / 10 * 4)),
    "solarize": lambda: ImageOps.solarize(image, 256 - int(amount / 10 * 256)),
    "solarize_add": lambda: image.point([min(255, i + add) if i < 128 else i for i in range(256)] * 3),
    "colour": lambda: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
    "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
    "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
    "rotate": lambda: image.rotate(30 * level, kind, fillcolor=fill),
    "shear_x": lambda: affine(1, 0.3 * level, 0, 0, 1, 0),
    "shear_y": lambda: affine(1, 0, 0, 0.3 * level, 1, 0),
    "translate_x": lambda: affine(1, 0, 0.45 * level * WIDTH, 0, 1, 0),
    "translate_y": lambda: affine(1, 0, 0, 0, 1, 0.45 * level * HEIGHT),
  }
  return np.asarray(made[name](), np.float32)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_pillows(name):
  for amount, negative, cubic in [
    (9.0, False, False),
    (8.3, True, True),
    (5.0, False, True),
    (9.9, True, False),
  ]:
    difference = np.abs(ours(name, amount, negative, cubic) - pillow(name, amount, negative, cubic))
    # A pixel at the border of an affine map may fall on either side.
    assert (difference > 1).mean() < 0.002, (name, amount, difference.max())
    assert difference.mean() < 0.05


def test_operations_change_the_image():
  for name in OPERATIONS:
    assert np.abs(ours(name, 9.0, True, False) - IMAGE).max() > 5, name


def test_flat_image_survives_every_operation():
  flat = jnp.full((3, 8, 8), 77.0)
  for index in range(len(OPERATIONS)):
    made = operation()(flat, jnp.int32(index), jnp.float32(9), True, True)
    assert np.isfinite(made).all() and 0 <= made.min() <= made.max() <= 255


def test_rand_augment_is_a_function_of_its_key_and_survives_vmap():
  planes = jnp.asarray(IMAGE.transpose(2, 1, 0), jnp.float32) / 255
  keys = jax.random.split(jax.random.key(0), 16)
  one = jax.jit(randaugment.rand_augment)
  batch = jax.jit(jax.vmap(randaugment.rand_augment, (0, None)))(keys, planes)
  for i in range(16):
    # A fused multiply-add may round a grey level the other way.
    np.testing.assert_allclose(one(keys[i], planes), batch[i], atol=1.01 / 255)
  assert len(np.unique(np.asarray(batch).sum((1, 2, 3)).round(3))) > 8
  assert 0 <= batch.min() <= batch.max() <= 1


def test_a_quarter_of_images_stays_as_it_is():
  planes = jnp.asarray(IMAGE.transpose(2, 1, 0), jnp.float32)[:, :8, :8] / 255
  keys = jax.random.split(jax.random.key(1), 600)
  made = jax.jit(jax.vmap(randaugment.rand_augment, (0, None)))(keys, planes)
  same = (np.abs(np.asarray(made) - np.asarray(planes)) < 1e-6).all((1, 2, 3)).mean()
  assert 0.19 < same < 0.35  # 0.25 for no operation; a few operations change nothing


def erase(p: float, count: int) -> np.ndarray:
  keys = jax.random.split(jax.random.key(2), count)
  call = functools.partial(
    randaugment.random_erase,
    planes=jnp.full((3, 32, 24), 2.0),
    p=p,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.1, 0.3),
  )
  return np.asarray(jax.jit(jax.vmap(lambda key: call(key)))(keys))


def test_erased_rectangle_has_its_area_its_noise_and_its_frequency():
  made = erase(1.0, 400)
  changed = made != 2.0
  assert (changed.all(1) == changed.any(1)).all()  # the same rectangle in all channels
  mask = changed[:, 0]
  area = mask.mean((1, 2))
  assert (area > 0).all() and 0.015 < area.min() and area.max() < 0.35
  assert area.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
  for one in mask[:50]:
    rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
    assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all() and one.sum() == len(rows) * len(
      columns
    )
  inside = np.moveaxis(made, 1, -1)[mask]
  np.testing.assert_allclose(inside.mean(0), [0.5, 0.4, 0.3], atol=0.01)
  np.testing.assert_allclose(inside.std(0), [0.2, 0.1, 0.3], rtol=0.03)
  assert (erase(0.25, 400) != 2.0).any((1, 2, 3)).mean() == pytest.approx(0.25, abs=0.07)
