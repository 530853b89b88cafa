"""Finds the segmentation masks among the features of a TFDS data set, and knows the classes of some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from ssl_jax.data import decode
from ssl_jax.data.mask_layouts import ade20k_classes, cityscapes_classes
from ssl_jax.data.mask_values import UNKNOWN, MaskClasses, named_values

_WORDS = ("mask", "segmentation", "annotation", "label")  # in the names of features that are masks


class StoredMasks(NamedTuple):
  """The masks of a TFDS data set."""

  feature: str
  classes: MaskClasses
  red: bool = False  # of a colour image, the red channel is the mask

  def stored(self, data: bytes) -> Any:
    """Returns the "mask" of a record. Raises DecodeError if a colour image cannot be decoded."""
    if self.red and decode.open_image(data).image.mode in ("RGB", "RGBA"):
      return decode.decode(data)[..., 0]
    return data


# TFDS prepares scene_parse150 from ADE20K's instance annotations: their red channel is the class, of which
# only 100 occur, and green is the number of the object. The semantic annotations have one channel.
KNOWN = {
  "scene_parse150": StoredMasks("annotation", ade20k_classes(), red=True),
  "cityscapes": StoredMasks("segmentation_label", cityscapes_classes()),
  "oxford_iiit_pet": StoredMasks("segmentation_mask", named_values({1: "pet", 2: "background", 3: "border"})),
}


def find_masks(name: str, features: Mapping[str, Any]) -> StoredMasks | None:
  """Returns the masks of a data set; None if it has none.

  Data sets in KNOWN define their values. Of others, the masks are the first image with one channel beside
  another image that is a `LabeledImage`, which lists its classes, or has one of the words mask, segmentation,
  annotation and label in its name; then all values are passed on.
  """
  if name in KNOWN:
    return KNOWN[name] if KNOWN[name].feature in features else None
  images: dict[str, Any] = {key: f for key, f in features.items() if isinstance(f, tfds.features.Image)}
  for key, found in images.items() if len(images) > 1 else ():
    if isinstance(found, tfds.features.LabeledImage):
      return StoredMasks(key, named_values(dict(enumerate(found.names))) if found.names else UNKNOWN)
    if key != "image" and found.shape[-1] == 1 and any(word in key for word in _WORDS):
      return StoredMasks(key, UNKNOWN)
  return None
