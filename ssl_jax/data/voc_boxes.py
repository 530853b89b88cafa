"""Reads images with boxes as PASCAL VOC is released: an XML file an image, lists of names for splits."""

from __future__ import annotations

import pathlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping

import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.data import splits
from ssl_jax.data.mask_layouts import VOC
from ssl_jax.data.objects import Annotated, Empty, Objects, open_annotated, repaired
from ssl_jax.data.reader import Source

CLASSES = tuple(VOC[1:])  # without the background
LISTS = "ImageSets/Main"
_YEAR = re.compile(r"(?:VOC)?(\d{4})")
_OF_A_CLASS = {f"{name}_{split}" for name in CLASSES for split in ("train", "val", "trainval", "test")}


def open_voc_boxes(data_dir: str, split: str, *, empty: Empty = "keep") -> Source:
  """Opens a split of the detection task of PASCAL VOC: 20 classes.

  `data_dir` holds JPEGImages, Annotations and a list of names ImageSets/Main/SPLIT.txt for each split, such
  as trainval; or it, or VOCdevkit in it, holds such folders by year, VOC2007 and VOC2012. Then the splits are
  called "2007/trainval", and several are joined: "2007/trainval+2012/trainval"; if there is only one year,
  its splits are also known without it. The lists of single classes, such as cat_train.txt, are not splits.

  Boxes are (xmin - 1, ymin - 1, xmax, ymax): the files count pixels from 1 and include the last one. Objects
  that are difficult are read, as detectors are trained with them, and marked in "boxes_difficult". Boxes are
  clipped to their image and dropped if no area is left; the source tells how many in `left_out`.

  Args:
    empty: "drop" leaves out images without objects.
  Raises: ValueError if the lists, the split, the annotations of an image or the first image of a split do not
    exist, or if an annotation cannot be read or has an unknown class. The message names what is wrong.
  """
  lists = _lists(pathlib.Path(data_dir))
  splits.check_names(split, list(lists), f"the folder {data_dir}")
  found = {name: _read(lists[name]) for name in splits.names(split)}
  return open_annotated(found, split, CLASSES, empty=empty)


def _lists(data_dir: pathlib.Path) -> dict[str, pathlib.Path]:
  """Finds the list of every split: {"trainval" or "2007/trainval": path}."""
  if (data_dir / LISTS).is_dir():
    return _of_root(data_dir)
  for devkit in (data_dir, data_dir / "VOCdevkit"):
    years: Mapping[str, pathlib.Path] = {
      match[1]: path
      for path in (sorted(devkit.iterdir()) if devkit.is_dir() else ())
      if (match := _YEAR.fullmatch(path.name)) and (path / LISTS).is_dir()
    }
    if years:
      found = {
        f"{year}/{name}": path for year, root in years.items() for name, path in _of_root(root).items()
      }
      alone = _of_root(next(iter(years.values()))) if len(years) == 1 else {}
      return found | alone
  raise ValueError(
    f"data_dir={str(data_dir)!r}: there is no folder {LISTS} in it, nor in a VOC2007 or VOC2012 in it or in "
    "its VOCdevkit; give the folder that holds them"
  )


def _of_root(root: pathlib.Path) -> dict[str, pathlib.Path]:
  paths = sorted((root / LISTS).glob("*.txt"))
  return {path.stem: path for path in paths if path.stem not in _OF_A_CLASS}


def _read(path: pathlib.Path) -> list[Annotated]:
  """Reads the images of a list and their annotations."""
  root = path.parents[2]
  stems = [line.split()[0] for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
  missing = [stem for stem in stems if not (root / "Annotations" / f"{stem}.xml").is_file()]
  if missing:
    raise ValueError(
      f"{path}: {len(missing)} of {len(stems)} images have no annotation, the first is "
      f"Annotations/{missing[0]}.xml; add them, or use another split"
    )
  if stems and not (root / "JPEGImages" / f"{stems[0]}.jpg").is_file():
    raise ValueError(f"{path}: the image JPEGImages/{stems[0]}.jpg is not in {root}; unpack the images there")
  return [_annotated(root, stem) for stem in stems]


def _annotated(root: pathlib.Path, stem: str) -> Annotated:
  path = root / "Annotations" / f"{stem}.xml"
  try:
    tree = ElementTree.parse(path).getroot()
    found = [
      (
        *(float(_text(item, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")),
        _class(_text(item, "name")),
        int(item.findtext("difficult") or 0),
      )
      for item in tree.findall("object")
    ]
    width, height = (float(tree.findtext(f"size/{side}") or "inf") for side in ("width", "height"))
  except (ElementTree.ParseError, ValueError) as error:
    raise ValueError(f"{path}: {error}") from error
  rows = np.array(found, np.float32).reshape(-1, 6)
  boxes = rows[:, :4] - np.array([1, 1, 0, 0], np.float32)
  objects = Objects(
    boxes=boxes,
    classes=rows[:, 4].astype(np.int32),
    crowd=np.zeros(len(rows), bool),
    difficult=rows[:, 5] > 0,
    area=np.prod((boxes[:, 2:] - boxes[:, :2]).astype(np.float64), axis=1),
  )
  return repaired(str(root / "JPEGImages" / f"{stem}.jpg"), objects, width, height)


def _text(item: ElementTree.Element, place: str) -> str:
  found = item.findtext(place)
  if found is None:
    raise ValueError(f"an object has no <{place.replace('/', '><')}>")
  return found.strip()


def _class(name: str) -> int:
  if name not in CLASSES:
    raise ValueError(f"an object is of the class {name!r}, which VOC does not have{nearest(name, CLASSES)}")
  return CLASSES.index(name)
