"""Values of the specification: a gradient for deterministic corruptions, a constant image for random ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import corrupt


@functools.cache
def compiled(name: str, table: str):
  return jax.jit(corrupt.make(name, table=table))


def gradient(side: int) -> jax.Array:
  """Red increases to the right, green downwards and blue along both; whole grey levels."""
  y, x = np.mgrid[:side, :side].astype(np.float64)
  levels = np.round(255 * np.stack([x, y, (x + y) / 2], -1) / (side - 1))
  return jnp.asarray(levels / 255, jnp.float32)


# Mean and standard deviation of the red channel at severities 1, 3 and 5, computed with scikit-image 0.26,
# SciPy 1.17, OpenCV 5 and Pillow 13.
RED = {
  ("gaussian_blur", "imagenet"): ((127.067, 73.949), (127.058, 73.926), (127.040, 73.777)),
  ("defocus_blur", "imagenet"): ((126.933, 73.934), (126.933, 73.889), (128.388, 74.511)),
  ("zoom_blur", "imagenet"): ((126.719, 70.442), (126.696, 67.948), (126.540, 65.435)),
  ("brightness", "imagenet"): ((144.227, 78.228), (168.771, 80.951), (182.667, 81.732)),
  ("contrast", "imagenet"): ((127.000, 29.597), (126.897, 14.790), (127.000, 3.697)),
  ("pixelate", "imagenet"): ((127.848, 73.965), (127.665, 73.954), (127.786, 73.947)),
  ("saturate", "imagenet"): ((157.162, 58.606), (106.223, 87.887), (86.521, 94.766)),
  ("jpeg_compression", "imagenet"): ((127.496, 74.564), (127.718, 73.888), (127.718, 74.113)),
  ("gaussian_blur", "cifar"): ((127.031, 75.898), (127.031, 75.794), (127.000, 75.668)),
  ("defocus_blur", "cifar"): ((127.25, 75.933), (127.25, 75.726), (127.25, 75.419)),
  ("zoom_blur", "cifar"): ((123.594, 73.929), (123.500, 70.978), (123.250, 67.980)),
  ("brightness", "cifar"): ((135.609, 78.238), (150.773, 81.076), (167.439, 82.729)),
  ("contrast", "cifar"): ((127.0, 57.099), (127.0, 30.469), (127.0, 11.369)),
  ("pixelate", "cifar"): ((127.500, 75.984), (127.594, 75.960), (127.625, 75.912)),
  ("saturate", "cifar"): ((157.973, 60.216), (113.479, 85.640), (96.774, 92.080)),
}


@pytest.mark.parametrize("name, table", RED)
def test_gradient(name, table):
  image = gradient(224 if table == "imagenet" else 32)
  for severity, wanted in zip((1, 3, 5), RED[name, table]):
    red = np.asarray(compiled(name, table)(jax.random.key(0), image, severity))[..., 0] * 255
    assert (red.mean(), red.std()) == pytest.approx(wanted, abs=0.3), severity


DEVIATION = {  # standard deviation for a constant image of 128 at severities 1 to 5
  ("gaussian_noise", "imagenet"): (20.40, 30.61, 45.68, 63.09, 80.84),
  ("shot_noise", "imagenet"): (23.32, 36.10, 51.22, 73.41, 87.98),
  ("impulse_noise", "imagenet"): (22.09, 31.22, 38.21, 52.56, 66.21),
  ("speckle_noise", "imagenet"): (19.20, 25.58, 44.62, 56.22, 70.22),
  ("gaussian_noise", "cifar"): (10.21, 15.30, 20.42, 22.95, 25.50),
  ("shot_noise", "cifar"): (8.13, 11.27, 18.07, 20.86, 25.54),
  ("impulse_noise", "cifar"): (12.75, 18.05, 22.02, 28.49, 33.77),
  ("speckle_noise", "cifar"): (7.68, 12.81, 15.36, 20.48, 25.61),
}
MEAN = {
  "gaussian_noise": (127.5,) * 5,
  "shot_noise": (127.6, 127.6, 127.3, 124.8, 120.4),
  "impulse_noise": (128.0,) * 5,
}


@pytest.mark.parametrize("name, table", DEVIATION)
def test_noise_on_a_constant(name, table):
  flat = jnp.full((224, 224, 3), 128 / 255)
  for severity in range(1, 6):
    found = np.asarray(compiled(name, table)(jax.random.key(severity), flat, severity)) * 255
    assert found.std() == pytest.approx(DEVIATION[name, table][severity - 1], rel=0.03), severity
    if table == "imagenet" and name in MEAN:
      assert found.mean() == pytest.approx(MEAN[name][severity - 1], abs=0.6), severity


@pytest.mark.parametrize(
  "table, side, wanted",
  [("imagenet", 224, (80.6, 77.2, 74.7, 74.7, 73.7)), ("cifar", 32, (109.6, 96.2, 89.5, 85.4, 78.9))],
)
def test_fog_on_a_constant(table, side, wanted):
  fog = jax.jit(jax.vmap(corrupt.make("fog", table=table), (0, None, None)))
  flat = jnp.full((side, side, 3), 128 / 255)
  draws = 60 if side == 224 else 400
  for severity in (1, 3, 5):
    found = np.asarray(fog(jax.random.split(jax.random.key(severity), draws), flat, severity)) * 255
    assert found.mean() == pytest.approx(wanted[severity - 1], abs=3.5), severity  # few draws


def test_kernels_of_defocus_sum_to_the_published_values():
  from ssl_jax.corrupt.blur import _disk
  from ssl_jax.corrupt.tables import PARAMETERS

  sums = [_disk(*row).sum() for row in PARAMETERS["defocus_blur"]["imagenet"]]
  np.testing.assert_allclose(sums, [1, 1, 1, 1.01298, 1.01079], atol=1e-5)
