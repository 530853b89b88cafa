"""Data sets that are Python objects: anything with `len(data)` and `data[i]`, such as a torch Dataset.

`data[i]` may be
  a mapping with "image" (or "img") and perhaps "label", an item of a Hugging Face data set or of a list;
    "mask", the class of each pixel, and "clip", the path of a clip in the place of the image, are read too;
  a tuple (image, label), an item of torchvision's data sets;
  an image alone.
Arrays of a whole data set are one too: images [N, H, W, 3], (images, labels), or a mapping {"image": ...,
"label": ...} of arrays. An image is encoded (bytes), the path of a file, a Pillow image, or an array as in
`image_forms.as_pixels`. Label -1 means none. Item i must always be the same: random changes belong into
`config.augment`, which resumes.

Class names are the attribute `classes` or `class_names` of the data set, or those of the label of a Hugging
Face data set. Without them the labels are taken from the attribute `targets` or `labels`, or every item is
read once to find the largest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.config.named_functions import import_function
from ssl_jax.data import splits
from ssl_jax.data.elements import Record
from ssl_jax.data.image_forms import as_image
from ssl_jax.data.reader import Source

GIVEN = "given"  # the name of a data set that a program passes as an object
IMAGES = ("image", "img")
PASSED_ON = ("mask", "clip")  # further fields of an item that a record may have
_CHECKED = 16  # items whose content identifies a data set


def as_given(section: Any) -> Any:
  """The section `config.data` of a run or an evaluation of data that a program passes."""
  return dataclasses.replace(section, name=GIVEN, data_dir="")


def open_function(name: str, split: str, data_dir: str = "") -> Source:
  """Opens the data set that a function MODULE:FUNCTION makes.

  Args:
    name: the function is called with the options `split` (the name of a split) and `data_dir` if it has them.
      It returns a data set, a mapping of split names to data sets, or a `Source`, of which no part is taken.
    split: as in `sources.make`. If the function has no option `split`, the data set is the split "train".
  Raises: ValueError as `import_function` and `open_objects`.
  """
  function = import_function(name, "config.data.name")
  options = inspect.signature(function).parameters
  given = {"data_dir": data_dir} if "data_dir" in options else {}
  if "split" not in options:
    return open_objects(function(**given), split, title=name)
  made = {each: function(split=each, **given) for each in dict.fromkeys(splits.names(split))}
  return open_objects(made, split, title=name)


def open_objects(data: Any, split: str = "train", *, title: str = GIVEN) -> Source:
  """Opens a split, or a part of it, of data that a program has made.

  Args:
    data: a data set, which is the split "train", or a mapping of split names to data sets.
    split: in TFDS syntax. A part holds each class in proportion, as of folders.
    title: of the data, for messages.
  Raises: ValueError for an unknown split, or a first item that is not understood.
  """
  by_split = data if _is_splits(data) else {"train": data}
  splits.check_names(split, list(by_split), f"the data set {title}")
  made = by_split[split] if split in by_split else None
  if isinstance(made, Source):
    return made
  known = {name: _look(by_split[name], f"{title} {name}") for name in dict.fromkeys(splits.names(split))}
  labels = {name: found.known_labels() for name, found in known.items()}
  parts = splits.choose(split, labels)
  order = {name: number for number, name in enumerate(known)}
  rows = np.concatenate([np.stack([np.full(len(p), order[n]), p], 1) for n, p in parts])
  reader = ObjectReader(tuple(known.values()), rows)
  first = next(iter(known.values()))
  of_rows = np.concatenate([labels[name][places] for name, places in parts])
  # names that a data set states, rather than numbers that were found
  names = max((f.class_names for f in known.values()), key=lambda n: (len(n), not "".join(n).isdigit()))
  return Source(
    reader,
    len(names),
    names,
    first.native_shape if len(known) == 1 else None,
    fields=first.fields,
    order=splits.BY_CLASS if (of_rows >= 0).any() else splits.SHUFFLED,
    sorted_by_class=len(names) > 1 and bool((of_rows >= 0).all() and (np.diff(of_rows) >= 0).all()),
    note=" and ".join(filter(None, (found.note for found in known.values()))),
    fingerprint=reader.fingerprint() if not any(found.note for found in known.values()) else "",
  )


class DataSet(NamedTuple):
  """One data set, and what is known of it."""

  items: Any  # has a length, and an item for each number
  title: str
  class_names: tuple[str, ...]
  labels: np.ndarray | None  # i64[N]; None: unknown
  fields: tuple[str, ...]
  native_shape: tuple[int, int, int] | None
  note: str  # what the user should know

  def known_labels(self) -> np.ndarray:
    """i64[N]: the labels, -1 where they are unknown."""
    return np.full(len(self.items), -1) if self.labels is None else self.labels

  def record(self, index: int) -> Record:
    """The record of item `index`. Raises ValueError if it is not understood."""
    return as_record(self.items[index], f"item {index} of the data set {self.title}")


@dataclasses.dataclass(frozen=True, eq=False)
class ObjectReader:
  """Reads records out of data sets, one at a time: those for PyTorch need not allow several threads.

  With `config.data.workers` processes read, each from its own copy.
  """

  sets: tuple[DataSet, ...]
  rows: np.ndarray  # i64[N, 2]: (number of the data set, number of its item)
  lock: Any = dataclasses.field(default_factory=threading.Lock)

  def __reduce__(self):
    return ObjectReader, (self.sets, self.rows)  # a lock cannot be pickled

  def __len__(self) -> int:
    return len(self.rows)

  def read(self, indices: Sequence[int]) -> list[Record]:
    with self.lock:
      return [self.sets[number].record(int(item)) for number, item in self.rows[list(indices)]]

  def name(self, index: int) -> str:
    number, item = self.rows[index]
    return f"{self.sets[number].title}, item {item}"

  def fingerprint(self) -> str:
    """A digest of the number of records and of the content of some of them."""
    found = hashlib.sha256(str(len(self)).encode())
    for index in np.unique(np.linspace(0, len(self) - 1, _CHECKED).astype(int)):
      found.update(_content(self.read([int(index)])[0]))
    return found.hexdigest()[:16]


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
  """Arrays of a whole data set by field, as a data set of mappings."""

  arrays: Mapping[str, Any]

  def __len__(self) -> int:
    return len(next(iter(self.arrays.values())))

  def __getitem__(self, index: int) -> Record:
    return {name: array[index] for name, array in self.arrays.items()}


def as_record(item: Any, where: str) -> Record:
  """Turns an item of a data set into a record: "image" as bytes or uint8[H, W, 3], and "label".

  Args:
    where: names the item in messages.
  Raises: ValueError for an item without an image, or an image that is not understood.
  """
  if isinstance(item, (tuple, list)) and item:
    item = {"image": item[0], "label": item[1] if len(item) > 1 else -1}
  elif not isinstance(item, Mapping):
    item = {"image": item}
  label = item.get("label", -1)
  if np.ndim(label) or (label is not None and not float(label).is_integer()):
    raise ValueError(f"{where} has the label {label!r}; a label is the number of one class, or -1 for none")
  record: dict[str, Any] = {"label": -1 if label is None else int(label)}
  record |= {name: _mask(item[name]) if name == "mask" else item[name] for name in PASSED_ON if name in item}
  image = next((item[name] for name in IMAGES if name in item), None)
  if image is None and "clip" not in item:
    raise ValueError(
      f"{where} has {', '.join(map(str, item)) or 'nothing'}, but no 'image'; rename its image"
    )
  return record if image is None else {"image": as_image(image, where), **record}


def _mask(mask: Any) -> Any:
  return np.asarray(mask, np.uint8) if not isinstance(mask, bytes) else mask


def _is_splits(data: Any) -> bool:
  """Whether a mapping is one of split names to data sets, and not of fields to arrays."""
  return isinstance(data, Mapping) and not set(data) & {*IMAGES, *PASSED_ON}


def _look(data: Any, title: str) -> DataSet:
  """Finds out what a data set says about itself, from its attributes and its first item."""
  if isinstance(data, tuple) and len(data) == 2 and np.ndim(data[0]) == 4:
    data = {"image": data[0], "label": data[1]}
  items = Columns(data) if isinstance(data, Mapping) else data
  if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")) or isinstance(items, (str, bytes)):
    raise ValueError(
      f"the data set {title} is of type {type(data).__name__}; use an object with len(data) and data[i]"
    )
  if not len(items):
    raise ValueError(f"the data set {title} is empty; it needs at least one item")
  made = DataSet(items, title, (), None, (), None, "")
  first = made.record(0)
  names, labels, note = _class_names(items), _labels(items, first["label"]), ""
  if _content(made.record(0)) != _content(first):
    note = (
      "item 0 differs each time it is read, so a resumed run sees other images; augment in config.augment"
    )
  if labels is None and not names and first["label"] >= 0:
    labels = np.array([made.record(i)["label"] for i in range(len(items))])
  if labels is not None and len(labels) and labels.max() >= len(names):
    if names:
      raise ValueError(
        f"the data set {title} has the label {labels.max()}, but only {len(names)} class names: {names[:5]}"
      )
    names = tuple(map(str, range(labels.max() + 1)))
  fields = tuple(name for name in ("image", "clip", "mask", "label") if name in first)
  if "mask" in fields and not names:
    raise ValueError(f"the data set {title} has masks; name their classes in its attribute `classes`")
  images = items.arrays.get("image") if isinstance(items, Columns) else items
  shape = np.shape(images) if isinstance(images, np.ndarray) else ()
  native = shape[1:] if len(shape) == 4 and shape[-1] == 3 else None
  return made._replace(class_names=names, labels=labels, fields=fields, native_shape=native, note=note)


def _class_names(items: Any) -> tuple[str, ...]:
  for attribute in ("class_names", "classes"):
    if isinstance(found := getattr(items, attribute, None), Sequence) and found:
      return tuple(map(str, found))
  features = getattr(items, "features", None)
  label = features.get("label") if isinstance(features, Mapping) else None
  return tuple(map(str, getattr(label, "names", None) or ()))


def _labels(items: Any, first: int) -> np.ndarray | None:
  """i64[N]: the labels of all items as the data set lists them, if the first one is that of item 0."""
  columns = [getattr(items, name, None) for name in ("targets", "labels")]
  if isinstance(items, Columns):
    columns = [items.arrays.get("label")]
  elif "label" in (getattr(items, "column_names", None) or ()):
    columns = [items["label"]]
  for column in columns:
    found = np.asarray([] if column is None or callable(column) else column)
    if found.shape == (len(items),) and found.dtype.kind in "iu" and found[0] == first:
      return found.astype(np.int64)
  return None


def _content(record: Record) -> bytes:
  """What tells two records apart."""
  parts = [f"{name} {np.shape(value)}".encode() for name, value in record.items()]
  parts += [value if isinstance(value, bytes) else np.asarray(value).tobytes() for value in record.values()]
  return b"\n".join(parts)
