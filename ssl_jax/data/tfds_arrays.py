"""Finds and reads what a TFDS data set holds besides images and labels: arrays, and sequences of images."""

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

  @property
  def fields(self) -> tuple[str, ...]:
    """The names of all of them."""
    return (*self.arrays, *self.sequences)

  def stored(self, features: Any) -> Record:
    """The fields of a record, given the features of its tf.train.Example."""
    found: dict[str, Any] = {name: list(features[name].bytes_list.value) for name in self.sequences}
    for name, spec in self.arrays.items():
      values = features[name].float_list.value or features[name].int64_list.value
      found[name] = np.array(values, spec.dtype).reshape(spec.shape)
    return found


def find_arrays(features: Mapping[str, Any]) -> StoredArrays:
  """Finds the arrays of numbers and the sequences of images; scalars are none."""
  arrays, sequences = {}, []
  for name, feature in features.items():
    if type(feature) is tfds.features.Tensor and feature.shape and None not in feature.shape:
      arrays[name] = ShapeDtype(feature.shape, feature.np_dtype)
    if isinstance(feature, tfds.features.Sequence) and isinstance(feature.feature, tfds.features.Image):
      sequences.append(name)
  return StoredArrays(arrays, tuple(sequences))
