import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from ssl_jax import tasks
from ssl_jax.abilities import Segmenter
from ssl_jax.methods import MissingAbility
from ssl_jax.tasks.pixel_baseline import pixels
from tests.tasks.masked_images import NAMES, by_colour, data_of, painted, records_of


@pytest.fixture(scope="module")
def data():
  return data_of(painted(13, 0))


def measure(data, mesh, backbone=None, **options):
  task = tasks.make("segmentation", **options)
  return task.run(backbone or by_colour(), data, mesh, jax.random.key(0))


def truth_and_prediction(records, backbone):
  """All pixels of all images at once, each image segmented whole."""
  predict = backbone.method.abilities[Segmenter].predict
  truths, found = [], []
  for record in records:
    logits = predict(*backbone.weights, record["image"][None].astype(np.float32) / 255)
    truths.append(record["mask"].ravel())
    found.append(np.asarray(logits).argmax(-1).ravel())
  return np.concatenate(truths), np.concatenate(found)


def test_the_measures_are_those_of_one_confusion_matrix_of_all_pixels(mesh_of):
  """The images have one size, so that whole images are not padded."""
  records = painted(9, 1, sides=(20, 21))
  result = measure(data_of(records), mesh_of(1))
  truth, found = truth_and_prediction(records, by_colour())
  expected = confusion_matrix(truth[truth != 255], found[truth != 255], labels=range(3))
  np.testing.assert_array_equal(result.predictions["confusion"], expected)
  hits, union = np.diag(expected), expected.sum(0) + expected.sum(1) - np.diag(expected)
  assert result.scalars["miou"] == pytest.approx((hits / union).mean())
  assert list(result.scalars)[0] == "miou" and 0.4 < result.scalars["miou"] < 0.95
  assert result.scalars["pixel_accuracy"] == pytest.approx(hits.sum() / expected.sum())
  assert result.scalars["mean_accuracy"] == pytest.approx((hits / expected.sum(1)).mean())
  assert result.protocol["iou"] == pytest.approx(dict(zip(NAMES, hits / union)))
  assert result.protocol["test_rows"] == 9


@pytest.mark.parametrize(
  "options", [dict(), dict(window=16), dict(window=32), dict(window=8, stride=3), dict(short_side=20)]
)
def test_devices_and_groups_of_windows_do_not_matter(options, data, mesh_of):
  one = measure(data, mesh_of(1), **options)
  eight = measure(data, mesh_of(8), **options)
  alone = measure(data, mesh_of(1), together=1, **options)
  for other in (eight, alone):
    np.testing.assert_array_equal(one.predictions["confusion"], other.predictions["confusion"])
  assert one.protocol == eight.protocol


def test_with_windows_an_image_does_not_depend_on_the_others(mesh_of):
  """The canvas of a split grows with its largest image, which must not change the others' predictions."""
  records = painted(4, 2)
  large = painted(1, 3, sides=(60, 61))
  apart = [measure(data_of(part), mesh_of(1), window=8).predictions["confusion"] for part in (records, large)]
  both = measure(data_of(records + large), mesh_of(1), window=8).predictions["confusion"]
  np.testing.assert_array_equal(both, sum(apart))


def test_all_sizes_share_one_program(data, mesh_of):
  traces = []
  backbone = by_colour()
  predict = backbone.method.abilities[Segmenter].predict

  def counted(*args):
    traces.append(args[2].shape)
    return predict(*args)

  method = backbone.method._replace(abilities={Segmenter: Segmenter(counted)})
  measure(data, mesh_of(1), backbone._replace(method=method), window=8)
  assert len({record["mask"].shape for record in painted(13, 0)}) > 5
  assert len([shape for shape in traces if shape[0] > 1]) == 1  # one more trace finds the number of classes


def test_pictures_show_images_of_the_whole_split(data, mesh_of):
  found = measure(data, mesh_of(1)).predictions
  records = painted(13, 0)
  for row, index in enumerate((0, 2, 5, 7, 10, 12)):
    height, width = records[index]["mask"].shape
    assert found["shown_mask_size"][row].tolist() == [height, width]
    np.testing.assert_array_equal(found["shown_image"][row, :height, :width], records[index]["image"])
    np.testing.assert_array_equal(found["shown_truth"][row, :height, :width], records[index]["mask"])


def test_classes_are_compared_by_name(mesh_of):
  records = painted(6, 4)
  order = np.array([2, 0, 1])  # the new number of each class
  for record in records:
    keep = record["mask"] != 255
    record["mask"] = np.where(keep, order[record["mask"] % 3], 255).astype(np.uint8)
  names = ("road", "tree", "sky")
  renumbered = measure(data_of(records, class_names=names), mesh_of(1))
  plain = measure(data_of(painted(6, 4)), mesh_of(1))
  np.testing.assert_array_equal(renumbered.predictions["confusion"], plain.predictions["confusion"])
  assert renumbered.class_names == NAMES
  with pytest.raises(ValueError, match="the test masks have classes other than those of .*: house"):
    measure(data_of(records, class_names=("road", "tree", "house")), mesh_of(1))


def test_bad_options_and_data_are_refused(data, mesh_of):
  with pytest.raises(ValueError, match="segmentation.window is -1; use 0"):
    tasks.make("segmentation", window=-1)
  with pytest.raises(ValueError, match="stride 30 is larger than the window of 20"):
    tasks.make("segmentation", window=20, stride=30)
  with pytest.raises(ValueError, match="stride is 30, but window is 0"):
    tasks.make("segmentation", stride=30)
  with pytest.raises(
    ValueError, match="needs a mask for every test image, but the data has only image, label"
  ):
    measure(data._replace(records=records_of([])._replace(fields=("image", "label"))), mesh_of(1))
  with pytest.raises(MissingAbility, match="ability Segmenter, which 'raw pixels' does not have"):
    measure(data, mesh_of(1), pixels())
  method = by_colour().method
  patches = Segmenter(method.abilities[Segmenter].predict, 16)
  backbone = by_colour()._replace(method=method._replace(abilities={Segmenter: patches}))
  with pytest.raises(ValueError, match="window is 40, but .* multiples of 16; use 48"):
    measure(data, mesh_of(1), backbone, window=40)
  assert measure(data, mesh_of(1), backbone).protocol["canvas"] == (32, 32)
  nameless = data_of(painted(2, 0), class_names=())
  with pytest.raises(ValueError, match="distinguishes 3 classes, but 0 are named"):
    measure(nameless, mesh_of(1), by_colour(class_names=()))


def test_a_network_of_one_size_sees_whole_images_squashed_to_it(mesh_of):
  """Its predictions are those of the squashed images, resized to the labels."""
  records, plain = painted(9, 4), by_colour()
  fixed = Segmenter(plain.method.abilities[Segmenter].predict, size=(16, 24))
  backbone = plain._replace(method=plain.method._replace(abilities={Segmenter: fixed}))
  result = measure(data_of(records), mesh_of(1), backbone)
  matrix = np.zeros((3, 3), int)
  for one in records:
    height, width = one["mask"].shape
    squashed = Image.fromarray(one["image"]).resize((24, 16), Image.Resampling.BILINEAR)
    logits = fixed.predict(*backbone.weights, np.asarray(squashed, np.float32)[None] / 255)
    full = jax.image.resize(logits[0], (height, width, 3), "linear", antialias=False)
    counted = one["mask"] != 255
    matrix += confusion_matrix(one["mask"][counted], np.asarray(full).argmax(-1)[counted], labels=range(3))
  assert np.abs(result.predictions["confusion"] - matrix).sum() <= 4  # rounding of equal logits
  assert result.protocol["squashed"] and result.protocol["window"] == (16, 24)
  eight = measure(data_of(records), mesh_of(8), backbone)
  np.testing.assert_array_equal(result.predictions["confusion"], eight.predictions["confusion"])
  for name in ("window", "short_side"):
    with pytest.raises(ValueError, match=f"{name} is 16, but the network takes images of 16x24 pixels only"):
      measure(data_of(records), mesh_of(1), backbone, **{name: 16})
