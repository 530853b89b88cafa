"""A detector on a folder of images: boxes at full size, pictures, and the table."""

import numpy as np
import pytest
from PIL import Image

from ssl_jax import parallel
from ssl_jax.apply.kinds import Work, kind_of
from ssl_jax.apply.new_images import NewImages
from ssl_jax.apply.tables import read_predictions, write_predictions
from ssl_jax.data import sources
from ssl_jax.data.objects import of_record
from ssl_jax.methods import MissingAbility
from tests.tasks.boxed_images import NAMES, by_colour, drawn


def work_on(folder, output, backbone) -> Work:
  source = sources.make("folder", data_dir=str(folder))
  names = tuple(source.name(i).rpartition("/")[2] for i in range(len(source)))
  images = NewImages(source, None, names, {"crop": 40, "interpolation": "bilinear"})
  _, fit = kind_of(backbone)
  return Work(backbone, fit(backbone, images), parallel.make_mesh(), {}, None, None, output, 8, 0, 0)


def test_the_boxes_of_every_image_are_those_of_its_objects_at_full_size(tmp_path):
  (tmp_path / "images").mkdir()
  records = drawn(11, 0)
  for i, record in enumerate(records):
    (tmp_path / "images" / f"{i:02}.png").write_bytes(record["image"])
  backbone = by_colour()
  find, _ = kind_of(backbone)
  found = find(work_on(tmp_path / "images", tmp_path / "out", backbone))
  assert found.class_names == NAMES
  for i, record in enumerate(records):
    truth, mine = of_record(record), found.names == f"{i:02}.png"
    assert sorted(found.classes[mine]) == sorted(truth.classes)
    for number, box in zip(truth.classes, truth.boxes):
      (row,) = np.flatnonzero(mine & (found.classes == number))
      np.testing.assert_allclose(found.boxes[row], box, atol=2.5)  # images are reduced
    with Image.open(tmp_path / "out" / "pictures" / f"{i:02}.jpg") as picture:
      assert min(picture.size) == 40
  write_predictions(tmp_path / "out", found, {})
  again = read_predictions(tmp_path / "out")
  np.testing.assert_allclose(again.boxes, found.boxes, atol=0.01)
  np.testing.assert_array_equal(again.classes, found.classes)


def test_a_network_that_predicts_nothing_is_refused():
  backbone = by_colour()
  backbone = backbone._replace(method=backbone.method._replace(abilities={}))
  with pytest.raises(MissingAbility, match="fine-tune it first"):
    kind_of(backbone)
