"""Masks in TFDS data sets: which feature they are, and what the values of the sets known by name mean."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ssl_jax.data import host, sources
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.tfds_masks import find_masks

from .conftest import encoded, smooth
from .written_tfds import write

SIZE = 8
WHOLE = host.image_mask(host.Frame(SIZE))
IMAGE = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
MASK = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
COLOUR = tfds.features.Image(encoding_format="png")
BREED = tfds.features.ClassLabel(names=["cat", "dog"])


def level(*values):
  """A mask whose upper rows have the first value and the others the last."""
  mask = np.full((SIZE, SIZE), values[-1], np.uint8)
  mask[:2] = values[0]
  return mask


def both(source, index):
  mask = WHOLE(None, source[index])["mask"]
  return [int(mask[0, 0]), int(mask[-1, -1])]


def in_order(source):
  """The indices of the two records in the order in which they were written: TFDS shuffles."""
  place = {source[i]["image"]: i for i in range(len(source))}
  return [place[encoded(smooth(SIZE, SIZE, k))] for k in range(2)]


def test_pets_have_a_breed_and_three_parts(tmp_path):
  examples = [
    {"image": encoded(smooth(SIZE, SIZE, k)), "label": k % 2, "segmentation_mask": encoded(mask)}
    for k, mask in enumerate((level(1, 2), level(3, 1)))
  ]
  features = {"image": IMAGE, "label": BREED, "segmentation_mask": MASK}
  source = write(tmp_path, "oxford_iiit_pet", features, examples)
  assert source.fields == ("image", "mask", "label") and source.class_names == ("cat", "dog")
  assert source.num_classes == 2 and source.mask_classes == ("pet", "background", "border")
  first, second = in_order(source)
  assert both(source, first) == [0, 1] and both(source, second) == [2, 0] and source[second]["label"] == 1
  image = host.image(host.Frame(SIZE))
  assert image(None, source[second])["label"] == 1  # classification reads the same set
  held = sources.cached(source)
  assert both(held, first) == [0, 1] and held.mask_classes == source.mask_classes


@pytest.mark.parametrize("form", ["semantic", "instances"])
def test_scene_parse150_reduces_its_zero_label(form, tmp_path):
  masks = [level(0, 1), level(150, 100)]
  if form == "instances":  # red: the class; green: the number of the object
    masks = [np.stack([mask, np.full_like(mask, 9), np.zeros_like(mask)], -1) for mask in masks]
  examples = [
    {"image": encoded(smooth(SIZE, SIZE, k)), "annotation": encoded(mask)} for k, mask in enumerate(masks)
  ]
  source = write(tmp_path, "scene_parse150", {"image": IMAGE, "annotation": COLOUR}, examples)
  assert source.num_classes == 150 == len(source.mask_classes) and source[0]["label"] == -1
  assert [both(source, i) for i in in_order(source)] == [[255, 0], [149, 99]]


def test_cityscapes_holds_label_ids(tmp_path):
  examples = [
    {"image_left": encoded(smooth(SIZE, SIZE)), "image_id": "a", "segmentation_label": encoded(level(7, 3))}
  ]
  features = {"image_left": IMAGE, "image_id": tfds.features.Text(), "segmentation_label": MASK}
  source = write(tmp_path, "cityscapes", features, examples)
  assert source.class_names[0] == "road" and source.num_classes == 19
  assert both(source, 0) == [0, 255]


def test_a_set_that_names_its_classes(tmp_path):
  labelled = tfds.features.LabeledImage(labels=["void", "sky", "road"], encoding_format="png")
  examples = [
    {"image": encoded(smooth(SIZE, SIZE, k)), "parts": encoded(level(*v))}
    for k, v in enumerate(((0, 2), (1, 3)))
  ]
  source = write(tmp_path, "own", {"image": IMAGE, "parts": labelled}, examples)
  good, bad = in_order(source)
  assert source.mask_classes == ("sky", "road") and both(source, good) == [255, 1]
  with pytest.raises(DecodeError, match=r"does not define: 3 \(48 pixels\)"):
    both(source, bad)


def test_the_feature_that_is_the_mask():
  def found(**features):
    masks = find_masks("own", features)
    return masks and masks.feature

  assert found(image=IMAGE, object_mask=MASK) == "object_mask"
  assert found(annotation=MASK, photo=IMAGE) == "annotation"
  assert found(image=IMAGE, depth=MASK) is None  # not a name of a mask
  assert found(image=IMAGE, label=BREED) is None
  assert found(image=IMAGE, mask=COLOUR) is None  # three channels
  assert found(label_image=MASK) is None  # the only image is no mask
  assert find_masks("cityscapes", {"image_left": IMAGE, "disparity_map": MASK}) is None


def test_values_of_unknown_sets_are_passed_on(tmp_path):
  examples = [{"annotation": encoded(level(40, 200)), "photo": encoded(smooth(SIZE, SIZE))}]
  source = write(tmp_path, "own", {"annotation": MASK, "photo": IMAGE}, examples)
  assert source.num_classes == 0 and source.mask_classes == () and both(source, 0) == [40, 200]
