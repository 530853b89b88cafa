"""Mask targets are RoIAlign of the mask of an image; pasting is torch's grid_sample."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.detect.masks import crop_masks, paste_masks
from tests.detect.programs import GIGABYTE, largest_array, random_boxes, shape


def discs(count: int, side: int) -> np.ndarray:
  y, x = np.mgrid[:side, :side]
  random = np.random.default_rng(0)
  centres, radii = random.uniform(0, side, (count, 2)), random.uniform(side / 6, side / 2, count)
  return np.stack([(y - a) ** 2 + (x - b) ** 2 < r**2 for (a, b), r in zip(centres, radii)])


def same(actual, wanted, tolerance=1e-5):
  np.testing.assert_allclose(np.asarray(actual), np.asarray(wanted), rtol=0, atol=tolerance)


def test_a_box_in_whole_pixels_cuts_the_mask():
  masks = discs(2, 32)
  found = jax.jit(functools.partial(crop_masks, size=8))(
    masks, jnp.array([1]), jnp.array([[4.0, 10, 12, 18]])
  )
  assert found.dtype == bool
  fraction = crop_masks(
    jnp.array(masks), jnp.array([1]), jnp.array([[4.0, 10, 12, 18]]), size=8, samples=1, threshold=None
  )
  same(fraction[0], masks[1, 10:18, 4:12])


def test_targets_are_roi_align_of_the_mask():
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  ops = pytest.importorskip("torchvision.ops", reason="torchvision is not installed")
  masks, boxes = discs(3, 64), random_boxes(1, 20, 64)
  index = np.random.default_rng(2).integers(0, 3, 20, np.int32)
  run = jax.jit(functools.partial(crop_masks, size=14, memory=5 * 64 * 64 * 4, threshold=None))
  rois = np.concatenate([index[:, None].astype(np.float32), boxes], 1)
  wanted = ops.roi_align(
    torch.from_numpy(masks[:, None].astype(np.float32)), torch.from_numpy(rois), 14, 1.0, 2, aligned=True
  )
  found = run(masks, index, boxes)
  same(found, wanted[:, 0])
  binary = crop_masks(jnp.array(masks), jnp.array(index), jnp.array(boxes), size=14)
  np.testing.assert_array_equal(binary, np.asarray(found) >= 0.5 - 1e-5)
  assert 0.2 < binary.mean() < 0.8


def test_masks_in_the_frame_of_their_box():
  masks, frame = discs(1, 64), np.array([[10, 20, 50, 60]], np.float32)
  inside = jnp.array([[12.0, 25, 40, 55], [20, 21, 30, 40]])
  wanted = crop_masks(jnp.array(masks), jnp.zeros(2, int), inside, size=9, threshold=None)
  cut = jnp.array(masks[:, 20:60, 10:50])
  same(crop_masks(cut, jnp.zeros(2, int), inside, size=9, frames=jnp.array(frame), threshold=None), wanted)
  finer = cut.repeat(4, 1).repeat(4, 2)
  same(
    crop_masks(finer, jnp.zeros(2, int), inside, size=2, samples=9, frames=jnp.array(frame), threshold=None),
    crop_masks(cut, jnp.zeros(2, int), inside, size=2, samples=9, frames=jnp.array(frame), threshold=None),
    0.02,
  )


def test_nothing_lies_outside_a_frame():
  frame, box = jnp.array([[10.0, 10, 20, 20]]), jnp.array([[0.0, 5, 40, 25]])
  found = crop_masks(
    jnp.ones((1, 7, 7)), jnp.zeros(1, int), box, size=4, samples=5, frames=frame, threshold=None
  )
  same(found[0], np.outer([0, 1, 1, 0], [0, 1, 0, 0]))
  padding = crop_masks(jnp.ones((1, 7, 7)), jnp.zeros(1, int), 0 * box, size=4, frames=0 * frame)
  assert padding.shape == (1, 4, 4)


def test_pasting_is_grid_sampling():
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  masks = np.random.default_rng(3).random((6, 28, 28), np.float32)
  boxes = random_boxes(4, 6, 80)
  boxes[0] = [-10, -5, 30, 100]  # extends beyond the image
  rows, columns = np.arange(60) + 0.5, np.arange(80) + 0.5
  wanted = []
  for mask, (x1, y1, x2, y2) in zip(masks, boxes):
    x, y = (columns - x1) / (x2 - x1) * 2 - 1, (rows - y1) / (y2 - y1) * 2 - 1
    grid = torch.from_numpy(np.stack(np.meshgrid(x, y), -1)[None].astype(np.float32))
    wanted.append(
      torch.nn.functional.grid_sample(torch.from_numpy(mask[None, None]), grid, align_corners=False)[0, 0]
    )
  run = functools.partial(paste_masks, height=60, width=80)
  found = jax.jit(functools.partial(run, threshold=None))(masks, boxes)
  same(found, np.stack(wanted), 1e-4)
  np.testing.assert_array_equal(jax.jit(run)(masks, boxes), np.asarray(found) >= 0.5)


def test_pasting_of_torchvision():
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  heads = pytest.importorskip("torchvision.models.detection.roi_heads", reason="torchvision is not installed")
  masks = np.random.default_rng(3).random((6, 28, 28), np.float32)
  boxes = random_boxes(4, 6, 80)
  boxes[0], boxes[1] = [0, 3, 30, 60], [7, 7, 7.5, 9]  # grows beyond the image; smaller than a pixel
  wanted = heads.paste_masks_in_image(torch.from_numpy(masks[:, None]), torch.from_numpy(boxes), (60, 80))
  paste = functools.partial(paste_masks, height=60, width=80, threshold=None, convention="torchvision")
  same(jax.jit(paste)(masks, boxes), wanted[:, 0].numpy(), 1e-4)


def test_torchvision_extends_a_box_to_whole_pixels():
  paste = functools.partial(paste_masks, jnp.ones((1, 28, 28)), jnp.array([[3.0, 5, 13, 9]]))
  exact, whole = (paste(height=20, width=16, convention=name)[0] for name in ("detectron2", "torchvision"))
  assert exact.sum() == 40 and whole.sum() == 72 and whole[4:10, 2:14].all()


def test_a_full_mask_fills_its_box_and_padding_is_empty():
  boxes = jnp.array([[3.0, 5, 13, 9], [0, 0, 0, 0], [7, 2, 4, 9]])
  found = jax.jit(functools.partial(paste_masks, height=20, width=16, memory=1))(jnp.ones((3, 28, 28)), boxes)
  wanted = np.zeros((3, 20, 16), bool)
  wanted[0, 5:9, 3:13] = True
  np.testing.assert_array_equal(found, wanted)


def test_cutting_undoes_pasting():
  mask = discs(1, 28).astype(np.float32)
  box = jnp.array([[10.0, 10, 122, 122]])
  image = paste_masks(jnp.array(mask), box, height=128, width=128)
  assert (crop_masks(image, jnp.zeros(1, int), box, size=28) == (mask > 0)).mean() > 0.99


def test_batches():
  masks, boxes = (
    discs(4, 32).reshape(2, 2, 32, 32),
    np.stack([random_boxes(5, 6, 32), random_boxes(6, 6, 32)]),
  )
  index = np.array([[0, 1] * 3, [1, 0] * 3])
  run = functools.partial(crop_masks, size=7)
  found = jax.jit(jax.vmap(run))(masks, index, boxes)
  for i in range(2):
    np.testing.assert_array_equal(found[i], jax.jit(run)(masks[i], index[i], boxes[i]))


def test_memory():
  crop = jax.vmap(functools.partial(crop_masks, size=28))
  arguments = shape(4, 100, 1024, 1024, dtype=jnp.uint8), shape(4, 128, dtype=jnp.int32), shape(4, 128, 4)
  assert largest_array(crop, *arguments) < GIGABYTE / 2
  paste = jax.vmap(functools.partial(paste_masks, height=1024, width=1024))
  assert largest_array(paste, shape(4, 100, 28, 28), shape(4, 100, 4)) < GIGABYTE / 2


def test_other_types_and_conventions_are_refused():
  with pytest.raises(ValueError, match="convention 'caffe' of pasted masks is unknown; use 'detectron2'"):
    paste_masks(jnp.zeros((1, 2, 2)), jnp.zeros((1, 4)), height=4, width=4, convention="caffe")
  with pytest.raises(ValueError, match="masks has type bfloat16"):
    paste_masks(jnp.zeros((1, 2, 2), jnp.bfloat16), jnp.zeros((1, 4)), height=4, width=4)
