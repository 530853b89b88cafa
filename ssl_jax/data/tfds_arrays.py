"""Finds and reads what a TFDS data set holds besides images and labels: arrays, image sequences, clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from ssl_jax.data.elements import Record, ShapeDtype


class StoredArrays(NamedTuple):
  """The features that become fields of a record under their own names."""

  arrays: Mapping[str, ShapeDtype]  # of numbers, of a fixed shape
  sequences: tuple[str, ...]  # of images, which become lists of encoded files
  clip: str = ""  # the text that names the clip of a record, which becomes the field "clip_name"; "": none

  @property
  def fields(self) -> tuple[str, ...]:
    """The names of all of them."""
    return (*self.arrays, *self.sequences, *(("clip_name",) if self.clip else ()))

  def stored(self, features: Any) -> Record:
    """The fields of a record, given the features of its tf.train.Example."""
    found: dict[str, Any] = {name: list(features[name].bytes_list.value) for name in self.sequences}
    for name, spec in self.arrays.items():
      values = features[name].float_list.value or features[name].int64_list.value
      found[name] = np.array(values, spec.dtype).reshape(spec.shape)
    if self.clip:
      found["clip_name"] = features[self.clip].bytes_list.value[0].decode()
    return found


def find_arrays(features: Mapping[str, Any]) -> StoredArrays:
  """Finds the arrays of numbers, the sequences of images, and the text "clip"; scalars are no arrays."""
  arrays, sequences, clip = {}, [], ""
  for name, feature in sorted(features.items()):  # TFDS reads them from a file in a random order
    shape: Any = feature.shape
    if type(feature) is tfds.features.Tensor and shape and None not in shape:
      arrays[name] = ShapeDtype(shape, feature.np_dtype)
    if isinstance(feature, tfds.features.Sequence) and isinstance(feature.feature, tfds.features.Image):
      sequences.append(name)
    if name == "clip" and isinstance(feature, tfds.features.Text):
      clip = name
  return StoredArrays(arrays, tuple(sequences), clip)
