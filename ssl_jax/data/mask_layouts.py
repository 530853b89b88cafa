"""Reads the folders of segmentation data sets as they are published: VOC, Cityscapes, ADE20K and CamVid.

Each function lists pairs of image and mask and says how the data set numbers its classes; `open_pairs` does
the rest. COCO's are in coco_masks.py.
"""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence

from ssl_jax.data.folder_layout import is_image
from ssl_jax.data.mask_folder import Pair, open_pairs
from ssl_jax.data.mask_values import IGNORE, MaskClasses, named_values, value_table
from ssl_jax.data.reader import Source

VOC = (
  "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
  "person pottedplant sheep sofa train tvmonitor"
).split()
CAMVID = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist".split()
CITYSCAPES = {  # label id -> class; the other ids up to 33 are not evaluated
  7: "road",
  8: "sidewalk",
  11: "building",
  12: "wall",
  13: "fence",
  17: "pole",
  19: "traffic light",
  20: "traffic sign",
  21: "vegetation",
  22: "terrain",
  23: "sky",
  24: "person",
  25: "rider",
  26: "car",
  27: "truck",
  28: "bus",
  31: "train",
  32: "motorcycle",
  33: "bicycle",
}
ADE20K_CLASSES = 150
ADE20K_SPLITS = {"train": "training", "training": "training", "val": "validation", "validation": "validation"}
_AUGMENTED = ("train_aug", "trainaug")  # two spellings of one split


def open_voc_masks(data_dir: str, split: str) -> Source:
  """Opens a split of the segmentation task of PASCAL VOC: 21 classes with the background.

  `data_dir`, or VOCdevkit/VOC2012 or VOC2012 in it, holds JPEGImages, SegmentationClass and a list of names
  ImageSets/Segmentation/SPLIT.txt or ImageSets/SegmentationAug/SPLIT.txt for each split, such as train, val
  and train_aug (trainaug is the same). A name of a list may be a path, of which the last part counts; what
  follows after a blank is ignored. If an image has no mask in SegmentationClass, the one in
  SegmentationClassAug is used. The value 255, which borders the objects, means no class.

  Raises: ValueError if there are no such lists, or as `open_pairs`.
  """
  root = _root(data_dir, ("", "VOCdevkit/VOC2012", "VOC2012"), "ImageSets")
  lists: dict[str, pathlib.Path] = {}
  for folder in ("Segmentation", "SegmentationAug"):
    for path in sorted(root.glob(f"ImageSets/{folder}/*.txt")):
      lists.setdefault(path.stem, path)
  if not lists:
    raise ValueError(f"{root}/ImageSets/Segmentation holds no list of a split, such as train.txt")
  for name, other in (_AUGMENTED, _AUGMENTED[::-1]):
    if other in lists:
      lists.setdefault(name, lists[other])
  find = {name: functools.partial(_listed, root, path) for name, path in lists.items()}
  return open_pairs(root, split, find, named_values(dict(enumerate(VOC))))


def open_cityscapes(data_dir: str, split: str) -> Source:
  """Opens a split of Cityscapes with fine annotations: the 19 classes that are evaluated.

  `data_dir` holds leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png. The
  other label ids, and the licence plate's -1, which is stored as 255, mean no class.

  Raises: ValueError as `open_pairs`.
  """
  root = _root(data_dir, ("",), "leftImg8bit")
  images = subfolders(root / "leftImg8bit")
  find = {name: functools.partial(_cityscapes_pairs, root, folder) for name, folder in images.items()}
  return open_pairs(root, split, find, cityscapes_classes())


def cityscapes_classes() -> MaskClasses:
  """Returns the classes of masks that hold Cityscapes' label ids."""
  return named_values({value: CITYSCAPES.get(value, "void") for value in range(max(CITYSCAPES) + 1)})


def open_ade20k(data_dir: str, split: str) -> Source:
  """Opens a split of ADE20K's scene parsing benchmark: 150 classes.

  `data_dir`, or ADEChallengeData2016 in it, holds images/training, images/validation, annotations/training
  and annotations/validation; the splits are also called train and val. A stored 0, "other", means no class;
  the classes 1 to 150 are numbered from 0. If objectInfo150.txt is present, each class is called by the first
  of its names there, and otherwise "class 1" and so on.

  Raises: ValueError if objectInfo150.txt does not list 150 classes, or as `open_pairs`.
  """
  root = _root(data_dir, ("", "ADEChallengeData2016"), "images")
  known = subfolders(root / "images")
  find = {
    name: functools.partial(_same_stems, root, known[stored], root / "annotations" / stored)
    for name, stored in ADE20K_SPLITS.items()
    if stored in known
  }
  return open_pairs(root, split, find, ade20k_classes(root / "objectInfo150.txt"))


def ade20k_classes(info: pathlib.Path | None = None, count: int = ADE20K_CLASSES) -> MaskClasses:
  """Returns the classes of masks in which 0 means no class and k is class k - 1.

  Args:
    info: a table with a line of headings, whose last column, after a tab, holds the names of a class,
      separated by commas.
  Raises: ValueError if the table does not have `count` classes.
  """
  names = tuple(f"class {k}" for k in range(1, count + 1))
  if info is not None and info.is_file():
    lines = [line for line in info.read_text(encoding="utf-8").split("\n")[1:] if line.strip()]
    names = tuple(line.split("\t")[-1].split(",")[0].strip() for line in lines)
    if len(names) != count:
      raise ValueError(f"{info} lists {len(names)} classes below its headings; ADE20K has {count}")
  return MaskClasses(value_table({0: IGNORE, **{k: k - 1 for k in range(1, count + 1)}}), names)


def open_camvid(data_dir: str, split: str) -> Source:
  """Opens a split of CamVid as the SegNet tutorial arranges it: 11 classes.

  `data_dir`, or CamVid in it, holds train and trainannot, val and valannot, test and testannot. The value 11
  means no class.

  Raises: ValueError as `open_pairs`.
  """
  root = _root(data_dir, ("", "CamVid"), "trainannot", "valannot", "testannot")
  known = subfolders(root)
  find = {
    name: functools.partial(_same_stems, root, folder, known[f"{name}annot"])
    for name, folder in known.items()
    if f"{name}annot" in known
  }
  return open_pairs(root, split, find, named_values(dict(enumerate([*CAMVID, "void"]))))


def pairs_by_stem(
  root: pathlib.Path, images: Sequence[pathlib.Path], masks: Sequence[pathlib.Path]
) -> list[Pair]:
  """Pairs each image with the PNG of its name in the first of the folders `masks` that holds it.

  If none does, the pair names the place in the first folder, so that the mask counts as missing.
  """
  present = [set(os.listdir(folder)) if folder.is_dir() else set() for folder in masks]
  places = [os.path.relpath(folder, root) for folder in masks]
  pairs = []
  for image in images:
    mask = f"{image.stem}.png"
    place = next((place for place, names in zip(places, present, strict=True) if mask in names), places[0])
    pairs.append((os.path.relpath(image, root), os.path.join(place, mask)))
  return pairs


def images_in(folder: pathlib.Path) -> list[pathlib.Path]:
  """Lists the images of a folder, sorted."""
  return [folder / name for name in sorted(os.listdir(folder)) if is_image(name)]


def _same_stems(root: pathlib.Path, images: pathlib.Path, masks: pathlib.Path) -> list[Pair]:
  return pairs_by_stem(root, images_in(images), [masks])


def _listed(root: pathlib.Path, path: pathlib.Path) -> list[Pair]:
  lines = path.read_text(encoding="utf-8").split("\n")
  stems = [pathlib.PurePosixPath(line.split()[0]).stem for line in lines if line.strip()]
  images = [root / "JPEGImages" / f"{stem}.jpg" for stem in stems]
  return pairs_by_stem(root, images, [root / "SegmentationClass", root / "SegmentationClassAug"])


def _cityscapes_pairs(root: pathlib.Path, split: pathlib.Path) -> list[Pair]:
  pairs, end = [], "_leftImg8bit"
  for city, folder in subfolders(split).items():
    for image in images_in(folder):
      if image.stem.endswith(end):
        mask = f"gtFine/{split.name}/{city}/{image.stem.removesuffix(end)}_gtFine_labelIds.png"
        pairs.append((os.path.relpath(image, root), mask))
  return pairs


def subfolders(root: pathlib.Path) -> Mapping[str, pathlib.Path]:
  """The folders inside a folder by name, sorted."""
  return {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}


def _root(data_dir: str, inside: Sequence[str], *marks: str) -> pathlib.Path:
  """Returns the first of the folders `inside` data_dir that holds one of the folders `marks`."""
  for name in inside:
    for mark in marks:
      if (pathlib.Path(data_dir, name) / mark).is_dir():
        return pathlib.Path(data_dir, name)
  places = " or ".join(str(pathlib.Path(data_dir, name)) for name in inside)
  raise ValueError(f"data_dir={data_dir!r}: there is no folder {' or '.join(marks)} in {places}")
