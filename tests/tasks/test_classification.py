"""Classification of whole clips: frames at equal distances, ten crops, averaged probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssl_jax import tasks
from ssl_jax.abilities import Classifier
from ssl_jax.data.clip_transforms import EvenCourse, even_frames
from ssl_jax.tasks import task as task_types
from ssl_jax.tasks.backbone import encoder_only
from ssl_jax.tasks.classification import ten_crops

KEY = jax.random.key(0)
SIZE, RESIZE = 6, 8


def probabilities(images: np.ndarray) -> np.ndarray:
  """f32[B, 3]: what the network of these tests believes; not linear, so that the order of means matters."""
  values = np.stack([images[:, 0, 0].mean(-1), images[:, -1, 0, 0], images[:, 2, -1, 1]], -1) * 6
  return np.exp(values) / np.exp(values).sum(-1, keepdims=True)


def predict(params, model_state, images):
  return 6 * jnp.stack([images[:, 0, 0].mean(-1), images[:, -1, 0, 0], images[:, 2, -1, 1]], -1)


def clip_records(clips: np.ndarray, labels: np.ndarray, transforms: list) -> task_types.TestRecords:
  def batches(transform):
    transforms.append(transform)
    yield {
      "clip": clips,
      "label": labels,
      "index": np.arange(len(clips), dtype=np.int32),
      "valid": np.ones(len(clips), bool),
    }

  none = lambda *_: {}
  return task_types.TestRecords(batches, none, none, lambda: np.zeros(0), ("clip", "label"))


@pytest.fixture
def network(dense):
  return dense._replace(method=encoder_only(dense.method.encode, {Classifier: Classifier(predict)}))


def test_probabilities_are_averaged_over_frames_and_ten_crops(network, make_data, noise, mesh_of):
  rng = np.random.default_rng(0)
  height, width, transforms = RESIZE, 11, []
  clips = rng.integers(0, 256, (8, 4, height, width, 3), np.uint8)
  labels = rng.integers(0, 3, 8).astype(np.int32)
  images = noise(8, 0)[0], labels
  data = make_data(images, images, 3, records=clip_records(clips, labels, transforms))
  data = data._replace(protocol={"resize": RESIZE, "crop": SIZE})
  found = tasks.make("classification", frames=4).run(network, data, mesh_of(8), KEY)
  expected = np.zeros((8, 3))
  for top, left in ((0, 0), (0, 5), (2, 0), (2, 5), (1, 2)):
    crop = clips[:, :, top : top + SIZE, left : left + SIZE] / 255
    for turned in (crop, crop[:, :, :, ::-1]):
      expected += probabilities(turned.reshape(-1, SIZE, SIZE, 3)).reshape(8, 4, 3).mean(1) / 10
  np.testing.assert_array_equal(found.predictions["prediction"], expected.argmax(1))
  assert found.scalars["top1"] == pytest.approx((expected.argmax(1) == labels).mean())
  assert found.protocol["frames"] == 4 and found.protocol["crops_of_a_frame"] == 10
  assert transforms[0] == even_frames(4, 8, 11)
  one = tasks.make("classification").run(network, data, mesh_of(1), KEY)
  assert one.protocol["frames"] == one.protocol["crops_of_a_frame"] == 1


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images():
  images = jnp.arange(2 * 5 * 7 * 3, dtype=jnp.float32).reshape(2, 5, 7, 3)
  crops = ten_crops(images, 3)
  assert len(crops) == 10 and all(crop.shape == (2, 3, 3, 3) for crop in crops)
  np.testing.assert_array_equal(crops[3], images[:, 2:, 4:])
  np.testing.assert_array_equal(crops[4], images[:, 1:4, 2:5])
  for crop, mirrored in zip(crops[:5], crops[5:]):
    np.testing.assert_array_equal(crop[:, :, ::-1], mirrored)
  assert len({np.asarray(crop).tobytes() for crop in crops}) == 10
  with pytest.raises(
    ValueError, match="frames of 5x7 pixels are smaller than crops of 6; use a smaller size"
  ):
    ten_crops(images, 6)


@pytest.mark.parametrize("length, expected", [(11, [0, 2, 5, 8, 10]), (3, [0, 0, 1, 2, 2]), (1, [0] * 5)])
def test_frames_are_spread_over_the_clip(length, expected, tmp_path):
  for number in range(length):
    Image.fromarray(np.full((9, 12, 3), 20 * number, np.uint8)).save(tmp_path / f"{number}.png")
  transform = even_frames(5, 8, 11)
  found = transform(None, {"clip": str(tmp_path), "label": 1})
  assert not transform.random and isinstance(transform.course, EvenCourse)
  assert found["clip"].shape == (5, 8, 11, 3)
  assert (found["clip"][:, 0, 0, 0] // 20).tolist() == expected


def test_records_that_are_no_clips_are_refused(network, make_data, noise, mesh_of):
  data = make_data(noise(8, 0), noise(8, 1), 3)
  data = data._replace(protocol={"resize": RESIZE, "crop": SIZE})
  with pytest.raises(ValueError, match="frames is 25, but the test records have no 'clip', only images; use"):
    tasks.make("classification", frames=25).run(network, data, mesh_of(1), KEY)
  with pytest.raises(ValueError, match="classification.frames is -1; use 25, or 0 for one image"):
    tasks.make("classification", frames=-1)
