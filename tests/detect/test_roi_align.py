"""RoIAlign: both forms equal torchvision's and a plain loop, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.detect.roi_align import assign_levels, pyramid_roi_align, roi_align
from tests.detect.programs import GIGABYTE, largest_array, random_boxes, shape

FORMS = ("gather", "separable")


@functools.cache
def compiled(**options):
  return jax.jit(functools.partial(roi_align, **options))


def same(actual, wanted, tolerance=1e-4):
  np.testing.assert_allclose(np.asarray(actual), np.asarray(wanted), rtol=tolerance, atol=tolerance)


def maps(seed, height, width, channels):
  return np.random.default_rng(seed).normal(size=(height, width, channels)).astype(np.float32)


def by_definition(features, box, stride, size, samples):
  """One RoI, sample by sample."""
  height, width, channels = features.shape
  found = np.zeros((size, size, channels))
  x1, y1, x2, y2 = np.asarray(box, np.float64) / stride - 0.5
  for row, column in np.ndindex(size * samples, size * samples):
    y = y1 + (row + 0.5) * (y2 - y1) / (size * samples)
    x = x1 + (column + 0.5) * (x2 - x1) / (size * samples)
    if -1 <= y <= height and -1 <= x <= width:
      y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
      for v in (int(y), min(int(y) + 1, height - 1)):
        for u in (int(x), min(int(x) + 1, width - 1)):
          weight = max(0, 1 - abs(y - v)) * max(0, 1 - abs(x - u))
          weight /= ((v == height - 1 == int(y)) + 1) * ((u == width - 1 == int(x)) + 1)  # counted twice
          found[row // samples, column // samples] += weight * features[v, u] / samples**2
  return found


def wild_boxes(count: int, side: int) -> np.ndarray:
  """Boxes of an image of `side` pixels; some are partly or wholly outside, tiny, empty or the whole image."""
  boxes = random_boxes(0, count, side)
  boxes[0] = [0, 0, side, side]
  boxes[1] = [-41, -29, 20, side + 53]
  boxes[2] = [side + 60, 10, side + 90, 40]
  boxes[3] = [7, 7, 7, 7]
  boxes[4] = [side - 1, side - 1, side, side]
  return boxes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size, samples", [(3, 2), (2, 1), (2, 3)])
def test_a_plain_loop(form, size, samples):
  features, boxes = maps(1, 9, 12, 2), wild_boxes(8, 100)
  found = compiled(stride=8, size=size, samples=samples, form=form)(features, boxes)
  same(found, [by_definition(features, box, 8, size, samples) for box in boxes])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_torchvision_and_its_gradient(form, aligned):
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  ops = pytest.importorskip("torchvision.ops", reason="torchvision is not installed")
  features, boxes, direction = maps(2, 20, 26, 5), wild_boxes(40, 320), maps(3, 40 * 14, 14, 5)
  direction = direction.reshape(40, 14, 14, 5)

  def total(features):
    found = roi_align(features, boxes, stride=16, size=14, aligned=aligned, form=form, memory=2**20)
    return (found * direction).sum(), found

  (_, found), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(features)
  leaf = torch.from_numpy(features.transpose(2, 0, 1)[None].copy()).requires_grad_()
  wanted = ops.roi_align(leaf, [torch.from_numpy(boxes)], 14, 1 / 16, 2, aligned=aligned)
  same(found, wanted.detach().numpy().transpose(0, 2, 3, 1))
  wanted.backward(torch.from_numpy(direction.transpose(0, 3, 1, 2).copy()))
  assert leaf.grad is not None
  same(gradient, leaf.grad[0].numpy().transpose(1, 2, 0))


@pytest.mark.parametrize("form", FORMS)
def test_a_pyramid_is_each_level_alone(form):
  strides, pyramid = [4, 8, 16, 32], [maps(i, 128 // 2**i, 160 // 2**i, 3) for i in range(4)]
  boxes = random_boxes(4, 30, 640) * np.float32(1.2)
  levels = assign_levels(jnp.array(boxes)) - 2
  assert set(levels.tolist()) >= {0, 1}
  levels = levels.at[:4].set(jnp.arange(4))
  run = jax.jit(functools.partial(pyramid_roi_align, strides=strides, size=7, form=form, memory=2**20))
  found = run(pyramid, boxes, levels)
  for i, stride in enumerate(strides):
    mine = np.asarray(levels) == i
    same(found[mine], compiled(stride=stride, size=7, form=form)(pyramid[i], boxes)[mine], 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_ramp_gives_the_centres_of_the_bins(form):
  ramp = jnp.broadcast_to(jnp.arange(32.0)[None, :, None], (32, 32, 1))
  found = compiled(stride=1, size=4, form=form)(ramp, jnp.array([[4.0, 6, 12, 22]]))
  same(found[0, :, :, 0], np.tile(4 + 2 * (np.arange(4) + 0.5) - 0.5, (4, 1)), 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_constants_and_shifts(form):
  boxes = jnp.array([[10.0, 8, 30, 40]])
  same(
    compiled(stride=2, size=5, form=form)(jnp.full((32, 32, 2), 3.0), boxes), np.full((1, 5, 5, 2), 3), 1e-5
  )
  features = maps(5, 32, 32, 2)
  moved = compiled(stride=2, size=5, form=form)(np.roll(features, 1, 1), boxes + jnp.array([[2.0, 0, 2, 0]]))
  same(moved, compiled(stride=2, size=5, form=form)(features, boxes), 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_chunk_changes_nothing(form):
  features, boxes = maps(6, 12, 12, 3), wild_boxes(13, 96)
  small = compiled(stride=8, size=3, form=form, memory=1)(features, boxes)
  same(small, compiled(stride=8, size=3, form=form)(features, boxes), 1e-6)


@pytest.mark.parametrize("form", ["auto", *FORMS])
def test_batches_types_and_boxes_without_gradient(form):
  features = np.stack([maps(seed, 12, 12, 3) for seed in (7, 8)])
  boxes = np.stack([wild_boxes(7, 96), random_boxes(9, 7, 96)])
  run = functools.partial(roi_align, stride=8, size=3, form=form)
  found, gradient = jax.jit(jax.vmap(jax.value_and_grad(lambda b, f: run(f, b).sum())))(boxes, features)
  assert np.isfinite(found).all() and not np.asarray(gradient).any()
  same(found, [compiled(stride=8, size=3)(f, b).sum() for f, b in zip(features, boxes)])


@pytest.mark.parametrize("form, tolerance", [("gather", 2**-8), ("separable", 2**-6)])
def test_bfloat16_features_are_summed_in_float32(form, tolerance):
  """The separable form also rounds its two matrices and the product of the first."""
  boxes = np.tile(random_boxes(9, 4, 96), (100, 1))
  values_and_gradient = jax.jit(
    jax.value_and_grad(
      lambda f: roi_align(f, boxes, stride=8, size=3, form=form, memory=1).sum(dtype=jnp.float32)
    )
  )
  features = jnp.array(maps(7, 12, 12, 3)).astype(jnp.bfloat16)
  half, wanted = values_and_gradient(features), values_and_gradient(features.astype(jnp.float32))
  assert half[1].dtype == jnp.bfloat16
  same(half[0], wanted[0], 1e-2)
  same(half[1].astype(jnp.float32), wanted[1], tolerance)


def test_sides_and_levels():
  sides = jnp.array([0.0, 56, 111.9, 112, 223.9, 224, 447.9, 448, 2000])
  boxes = jnp.stack([0 * sides, 0 * sides, sides, sides], 1)
  assert jax.jit(assign_levels)(boxes).tolist() == [2, 2, 2, 3, 3, 4, 4, 5, 5]


def test_torchvisions_levels():
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  poolers = pytest.importorskip("torchvision.ops.poolers", reason="torchvision is not installed")
  boxes = random_boxes(10, 300)
  wanted = poolers.LevelMapper(2, 5)([torch.from_numpy(boxes)])
  assert (assign_levels(jnp.array(boxes)) - 2).tolist() == wanted.tolist()


@pytest.mark.parametrize("form", FORMS)
def test_memory_of_c4_and_of_a_pyramid(form):
  """Nothing is larger than the result itself, 411 MB an image on C4, in the forward and backward pass."""

  def c4(features, boxes):
    return roi_align(features, boxes, stride=16, size=14, form=form)

  def fpn(pyramid, boxes):
    levels = assign_levels(boxes) - 2
    return pyramid_roi_align(pyramid, boxes, levels, strides=[4, 8, 16, 32], size=7, form=form)

  features, boxes = shape(2, 84, 84, 1024), shape(2, 512, 4)
  pyramid = [shape(2, 336 // 2**i, 336 // 2**i, 256) for i in range(4)]
  for function, arguments in ((c4, (features, boxes)), (fpn, (pyramid, boxes))):
    batch = jax.vmap(function)
    gradient = jax.grad(lambda *arguments, batch=batch: batch(*arguments).sum())
    assert largest_array(batch, *arguments) < GIGABYTE
    assert largest_array(gradient, *arguments) < GIGABYTE


def test_refusals():
  features, boxes = jnp.zeros((4, 4, 1)), jnp.zeros((1, 4))
  with pytest.raises(ValueError, match="form 'matmul' of RoIAlign is unknown; use 'auto'"):
    roi_align(features, boxes, stride=4, size=2, form="matmul")
  with pytest.raises(ValueError, match="1 feature maps and 2 strides"):
    pyramid_roi_align([features], boxes, jnp.zeros(1, jnp.int32), strides=[4, 8], size=2)
  with pytest.raises(ValueError, match="boxes has type bfloat16"):
    roi_align(features, boxes.astype(jnp.bfloat16), stride=4, size=2)
