"""Anchors: the table and the counts of the literature, and torchvision's generator."""

import jax
import numpy as np
import pytest

from ssl_jax.detect import anchors
from ssl_jax.detect.anchors import C4, FPN, Grid

SMALL = Grid(16, (32.0,))


def test_the_anchors_of_a_cell():
  wanted = [(-22.627, -11.314, 22.627, 11.314), (-16, -16, 16, 16), (-11.314, -22.627, 11.314, 22.627)]
  np.testing.assert_allclose(anchors.cell_anchors(SMALL), wanted, atol=1e-3)
  rounded = anchors.cell_anchors(SMALL, convention="torchvision")
  np.testing.assert_array_equal(rounded, [(-23, -11, 23, 11), (-16, -16, 16, 16), (-11, -23, 11, 23)])


def test_sizes_come_before_ratios_or_after_them():
  two = Grid(16, (32.0, 64.0), (1.0, 4.0))
  sides = lambda found: [tuple((row[2:] - row[:2]).tolist()) for row in found]
  assert sides(anchors.cell_anchors(two)) == [(32, 32), (16, 64), (64, 64), (32, 128)]
  torchvision = anchors.cell_anchors(two, convention="torchvision")
  assert sides(torchvision) == [(32, 32), (64, 64), (16, 64), (32, 128)]


def test_counts_for_an_image_of_1024_pixels():
  count = lambda grids: sum(
    level.shape[0] for level in jax.eval_shape(lambda: anchors.pyramid_anchors(1024, 1024, grids))
  )
  assert count(FPN) == 261_888 and count(C4) == 61_440
  assert C4[0].per_cell == 15 and [grid.per_cell for grid in FPN] == [3] * 5
  assert [(grid.stride, *grid.sizes) for grid in FPN] == [(4, 32), (8, 64), (16, 128), (32, 256), (64, 512)]


def test_cells_follow_row_by_row():
  found = anchors.grid_anchors(33, 64, SMALL)
  assert found.shape == (3 * 4 * 3, 4)  # a partial cell counts
  centres = (found[:, :2] + found[:, 2:]) / 2
  np.testing.assert_allclose(centres[0:3], np.zeros((3, 2)), atol=1e-5)
  np.testing.assert_allclose(centres[3], [16, 0], atol=1e-5)
  np.testing.assert_allclose(centres[12], [0, 16], atol=1e-5)
  shifted = anchors.grid_anchors(33, 64, SMALL, offset=0.5)
  np.testing.assert_allclose(shifted - found, np.full((36, 4), 8), atol=1e-5)


@pytest.mark.parametrize("grids, height, width", [(C4, 128, 192), (FPN, 128, 192), (FPN, 160, 224)])
def test_torchvisions_generator(grids, height, width):
  """The coarsest stride of FPN, 64, does not divide the last sides: the cells are 53 and 56 pixels apart."""
  torch = pytest.importorskip("torch", reason="torch is not installed: extra `import`")
  detection = pytest.importorskip(
    "torchvision.models.detection.anchor_utils", reason="torchvision is not installed"
  )
  images = pytest.importorskip("torchvision.models.detection.image_list")
  generator = detection.AnchorGenerator(
    tuple(tuple(map(int, grid.sizes)) for grid in grids), tuple(grid.ratios for grid in grids)
  )
  maps = [torch.zeros(1, 8, -(-height // grid.stride), -(-width // grid.stride)) for grid in grids]
  wanted = generator(images.ImageList(torch.zeros(1, 3, height, width), [(height, width)]), maps)[0]
  found = anchors.pyramid_anchors(height, width, grids, convention="torchvision")
  np.testing.assert_array_equal(np.concatenate(found), wanted)


def test_cells_of_torchvision_share_the_side_in_whole_pixels():
  found = anchors.grid_anchors(33, 64, Grid(64, (32.0,), (1.0,)), convention="torchvision")
  np.testing.assert_array_equal(found, [[-16, -16, 16, 16]])
  tall = anchors.grid_anchors(160, 64, Grid(64, (32.0,), (1.0,)), convention="torchvision")
  np.testing.assert_array_equal(tall[:, 1] + 16, [0, 53, 106])


def test_refusals():
  with pytest.raises(ValueError, match="anchor convention 'caffe' is unknown; use"):
    anchors.cell_anchors(SMALL, convention="caffe")
  with pytest.raises(ValueError, match=r"anchor sizes \(0.0,\) and ratios"):
    anchors.cell_anchors(Grid(16, (0.0,)))
