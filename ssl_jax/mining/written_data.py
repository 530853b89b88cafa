"""Writes mined records as a TFDS data set in array_record, which needs no TensorFlow."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

os.environ.setdefault("TFDS_DISABLE_PROGRESS", "1")

import tensorflow_datasets as tfds  # noqa: E402

from ssl_jax.data.elements import Record  # noqa: E402

VERSION = "1.0.0"
Records = Callable[[], Iterator[Record]]


def folder_of(output: pathlib.Path, name: str) -> pathlib.Path:
  """The folder of a data set that is written to `output`."""
  return output / name / VERSION


def write(
  output: pathlib.Path, name: str, features: Mapping[str, Any], records: Mapping[str, Records], about: str
) -> pathlib.Path:
  """Writes a data set; the folder appears when it is complete.

  Args:
    output: the folder of data sets, which gets the folder `name`/1.0.0.
    features: of TFDS, for every field of the records but "clip", the path of the clip.
    records: by split; encoded images are bytes.
    about: a description.
  Returns: the folder of the data set.
  """
  kind = types.new_class(
    "Mined", (_Builder,), {"skip_registration": True}, lambda made: made.update(name=name, __doc__=about)
  )
  builder = kind(data_dir=str(output), file_format="array_record", given=(features, records, about))
  tfds.disable_progress_bar()
  # TFDS announces a download, which does not happen.
  with tempfile.TemporaryDirectory() as unused, contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(download_dir=unused)
  return folder_of(output, name)


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set of the given features and records, in their order."""

  VERSION = tfds.core.Version(VERSION)

  def __init__(self, *, given, **options):
    self._given = given
    super().__init__(**options)

  def _info(self):
    features, _, about = self._given
    features = {**features, "clip": tfds.features.Text()}
    return tfds.core.DatasetInfo(
      builder=self, description=about, features=tfds.features.FeaturesDict(features), disable_shuffling=True
    )

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(split) for split in self._given[1]}

  def _generate_examples(self, split):
    for number, record in enumerate(self._given[1][split]()):
      yield number, {name: _opened(value) for name, value in record.items()}


def _opened(value: Any) -> Any:
  """Encoded images as files, which TFDS stores as they are: to encode pixels it would need TensorFlow."""
  if isinstance(value, bytes):
    return io.BytesIO(value)
  return [_opened(part) for part in value] if isinstance(value, (list, tuple)) else value
