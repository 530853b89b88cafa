"""Resized maps, compared with interpolation and averages one place at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.resize import pool, upsample


def interpolated(maps: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
  """Bilinear interpolation with numpy's piecewise linear function, which repeats the border."""
  for axis, after in ((1, size[0]), (2, size[1])):
    before = maps.shape[axis]
    if align_corners:
      place = np.linspace(0, before - 1, after)  # one place is the first one
    else:
      place = (np.arange(after) + 0.5) / after * before - 0.5
    maps = np.apply_along_axis(lambda line, at=place: np.interp(at, np.arange(len(line)), line), axis, maps)
  return maps


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
  "before, after", [((5, 4), (17, 9)), ((3, 1), (8, 4)), ((7, 6), (4, 3)), ((2, 2), (1, 5))]
)
def test_upsampling_is_bilinear(before, after, align_corners):
  maps = np.random.default_rng(0).standard_normal((2, *before, 3)).astype(np.float32)
  found = jax.jit(upsample, static_argnums=(1, 2))(maps, after, align_corners)
  np.testing.assert_allclose(found, interpolated(maps, after, align_corners), atol=1e-6)


def test_corners_stay_where_they_are_told_to():
  ramp = jnp.arange(3.0).reshape(1, 3, 1, 1)
  aligned, repeated = (upsample(ramp, (6, 1), align_corners)[0, :, 0, 0] for align_corners in (True, False))
  np.testing.assert_allclose(aligned, [0, 0.4, 0.8, 1.2, 1.6, 2], atol=1e-6)
  np.testing.assert_allclose(repeated, [0, 0.25, 0.75, 1.25, 1.75, 2], atol=1e-6)


@pytest.mark.parametrize("align_corners", [True, False])
def test_a_constant_stays_constant_in_either_precision(align_corners):
  maps = jnp.full((1, 33, 33, 2), 3.0)
  np.testing.assert_allclose(upsample(maps, (129, 97), align_corners), 3.0, rtol=1e-6)
  rough = upsample(maps.astype(jnp.bfloat16), (66, 132), False)
  assert rough.dtype == jnp.bfloat16 and (rough == 3).all()  # weights of whole factors are exact


def test_a_map_of_the_right_size_is_returned_as_it_is():
  maps = jnp.ones((1, 4, 5, 2))
  assert upsample(maps, (4, 5), True) is maps


def adaptive_pool(maps, grid):
  """Averages one cell at a time, as in the documentation of torch.nn.AdaptiveAvgPool2d."""
  h, w = maps.shape[1:3]

  def edge(i, side):
    return slice(int(np.floor(i * side / grid)), int(np.ceil((i + 1) * side / grid)))

  return np.stack(
    [np.stack([maps[:, edge(i, h), edge(j, w)].mean((1, 2)) for j in range(grid)], 1) for i in range(grid)], 1
  )


@pytest.mark.parametrize("shape,grid", [((6, 6), 1), ((6, 6), 3), ((7, 5), 3), ((3, 3), 2), ((2, 2), 4)])
def test_pool_is_an_adaptive_average(shape, grid):
  maps = np.random.default_rng(0).standard_normal((2, *shape, 3)).astype(np.float32)
  found = jax.jit(pool, static_argnums=1)(maps, grid)
  np.testing.assert_allclose(found, adaptive_pool(maps, grid), atol=1e-6)
