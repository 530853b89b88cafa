"""Compares two corrupted photographs with imagecorruptions, whose figures are in reference.json."""

import base64
import functools
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from ssl_jax import corrupt
from tests.corrupt import reference

KEY = jax.random.key(0)
FOUND = json.loads(reference.FILE.read_text())
# The number of draws; other corruptions are drawn as often as in reference.py.
DRAWS = {"spatter": 12, "elastic_transform": 16, "snow": 16, "fog": 40, "motion_blur": 24}


@functools.cache
def photographs() -> np.ndarray:
  return np.stack(reference.photographs())


@functools.cache
def compiled(name: str):
  return jax.jit(corrupt.make(name))


def applied(name: str, severity: int, draws: int) -> np.ndarray:
  """Returns the corrupted photographs in grey levels, [draws * 2, 224, 224, 3]."""
  images = jnp.asarray(photographs(), jnp.float32) / 255
  return np.stack(
    [
      np.round(np.asarray(compiled(name)(jax.random.key(i), image, severity)) * 255)
      for i in range(draws)
      for image in images
    ]
  )


@pytest.mark.parametrize("name", reference.DETERMINISTIC)
def test_deterministic_corruptions_agree_pixel_by_pixel(name):
  for severity in range(1, 6):
    made = applied(name, severity, 1)
    wanted = np.frombuffer(base64.b64decode(FOUND["pixels"][f"{name} {severity}"]), np.uint8).reshape(
      2, 14, 14, 3
    )
    ours = np.stack([reference.sampled(image) for image in made])
    assert np.abs(ours - wanted.astype(np.float64)).mean() < 1, severity  # of 255
    np.testing.assert_allclose(
      reference.statistics(made, photographs()), FOUND["statistics"][f"{name} {severity}"], atol=0.5
    )


@pytest.mark.parametrize("name", reference.RANDOM)
def test_random_corruptions_agree_in_distribution(name):
  draws = DRAWS.get(name, reference.DRAWS.get(name, 8))
  for severity in range(1, 6):
    made = applied(name, severity, draws)
    found = reference.statistics(made, np.tile(photographs(), (draws, 1, 1, 1)))
    wanted = FOUND["statistics"][f"{name} {severity}"]
    change = np.abs(made - np.tile(photographs(), (draws, 1, 1, 1))).mean((1, 2, 3)).reshape(draws, 2).mean(1)
    tolerance = 3 * change.std() / np.sqrt(draws) / change.mean()  # three standard errors of these draws
    np.testing.assert_allclose(found, wanted, rtol=0.05 + tolerance, err_msg=f"severity {severity}")


@pytest.mark.parametrize("name", corrupt.known())
def test_batches_and_traced_severities_give_what_single_images_give(name):
  """One program serves all severities, image i gets the draw of key i, and no corruption is the identity."""
  images = jnp.asarray(photographs()[:, 64:128, 64:128], jnp.float32) / 255
  one = jax.jit(corrupt.make(name, table="cifar"))
  batched = jax.jit(jax.vmap(corrupt.make(name, table="cifar")))
  keys, severities = jax.random.split(jax.random.key(0), 2), jnp.array([2, 5])
  found = batched(keys, images, severities)
  assert found.dtype == jnp.float32 and 0 <= found.min() and found.max() <= 1
  for i in range(2):
    wanted = one(keys[i], images[i], severities[i])
    # A value at the boundary of two grey levels may be truncated to either.
    assert np.abs(np.asarray(found[i] - wanted)).mean() < 1 / 255 / 10
    assert np.abs(np.asarray(wanted - images[i])).max() > 2 / 255
  assert one._cache_size() == 1


@pytest.mark.parametrize("table, side", [("cifar", 32), ("cifar", 48), ("imagenet", 64), ("imagenet", 224)])
def test_zoom_blur_is_scipys_at_every_severity(table, side):
  """The reference's steps with numpy and SciPy in float64."""
  steps = {
    "imagenet": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "cifar": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
  }[table]
  image = np.random.default_rng(0).random((side, side, 3))
  ours = jax.jit(corrupt.make("zoom_blur", table=table))
  for severity, (end, step) in enumerate(steps, 1):
    total = image.copy()
    for factor in np.arange(1, end, step):
      inside = int(np.ceil(side / factor))
      top = (side - inside) // 2
      centre = image[top : top + inside, top : top + inside]
      zoomed = scipy.ndimage.zoom(centre, (factor, factor, 1), order=1)
      trim = (len(zoomed) - side) // 2
      total += zoomed[trim : trim + side, trim : trim + side]
    wanted = np.floor(np.clip(total / (len(np.arange(1, end, step)) + 1), 0, 1) * 255)
    found = np.round(np.asarray(ours(KEY, jnp.asarray(image, jnp.float32), severity)) * 255)
    assert (found != wanted).mean() < 5e-3, severity  # values at the boundary of two grey levels
    assert np.abs(found - wanted).max() <= 1, severity


@pytest.mark.parametrize("table, side", [("cifar", 32), ("imagenet", 224)])
def test_jpeg_is_libjpegs_bit_for_bit(table, side):
  qualities = {"imagenet": (25, 18, 15, 10, 7), "cifar": (80, 65, 58, 50, 40)}[table]
  noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
  ours = jax.jit(corrupt.make("jpeg_compression", table=table))
  for image in (*photographs()[:, 64 : 64 + side, 64 : 64 + side], noise) if side < 224 else photographs():
    for severity, quality in enumerate(qualities, 1):
      file = io.BytesIO()
      Image.fromarray(image).save(file, "JPEG", quality=quality)
      wanted = np.asarray(Image.open(file)).astype(int)
      found = np.round(np.asarray(ours(KEY, jnp.asarray(image, jnp.float32) / 255, severity)) * 255)
      np.testing.assert_array_equal(found, wanted, err_msg=f"severity {severity}")


def test_glass_blur_equals_the_sequential_loop():
  """One pass equals the reference's loop for the same offsets; the loop copies where it means to swap."""
  from ssl_jax.corrupt import blur

  side, reach = 24, 2
  key = jax.random.key(3)
  source = np.asarray(blur._sources(key, side, side, jnp.int32(reach)))
  down, across = np.asarray(jax.random.randint(key, (2, side, side), -reach, reach))
  x = np.arange(side * side).reshape(side, side)
  for h in range(side - reach, reach, -1):
    for w in range(side - reach, reach, -1):
      x[h, w] = x[h + down[h, w], w + across[h, w]]
  np.testing.assert_array_equal(source.reshape(side, side), x)


def test_frost_takes_a_folder_of_pictures(tmp_path):
  for i in range(5):
    Image.fromarray(np.full((260, 300, 3), 10 * i, np.uint8)).save(tmp_path / f"frost{i + 1}.png")
  image = jnp.full((224, 224, 3), 0.4)
  found = jax.jit(corrupt.make("frost", textures=str(tmp_path)))
  levels = {float(np.round(np.asarray(found(jax.random.key(i), image, 1)).mean() * 255)) for i in range(30)}
  assert levels == {float(np.floor(102 + 0.4 * 10 * i)) for i in range(5)}
  (tmp_path / "frost3.png").unlink()
  from ssl_jax.corrupt import weather

  weather._textures.cache_clear()
  with pytest.raises(ValueError, match="has no picture frost3.png or .jpg; it must contain frost1 to frost5"):
    corrupt.make("frost", textures=str(tmp_path))(jax.random.key(0), image, 1)


def test_procedural_frost_is_bright_and_rough():
  from ssl_jax.corrupt import weather

  frosts = weather.procedural_frost()
  assert frosts.shape == (5, 512, 512, 3)
  for picture in frosts:
    assert 100 < picture.mean() < 130 and 45 < picture.std() < 75
    assert picture[..., 2].mean() > picture[..., 0].mean()


@pytest.mark.parametrize(
  "call, message",
  [
    (
      lambda: corrupt.make("gausian_noise"),
      "no corruption is called 'gausian_noise'; did you mean 'gaussian_noise'",
    ),
    (lambda: corrupt.make("fog", table="coco"), "table is 'coco'; use 'imagenet'"),
    (lambda: corrupt.make("fog")(jax.random.key(0), jnp.zeros((64, 64, 3)), 6), "severity is 6; use 1 to 5"),
    (
      lambda: corrupt.make("fog")(jax.random.key(0), jnp.zeros((16, 64, 3)), 1),
      "fog needs images of at least 32 pixels per side, .* 16 x 64",
    ),
  ],
)
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call()
