"""Masks: how stored values become classes, and what happens to values, files and sizes that are wrong."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import host, pipeline, sources
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.mask_values import UNKNOWN, decode_classes, named_values, read_class_file, value_table
from ssl_jax.data.memory import Stored

from .conftest import encoded, smooth

SIZE = 16
WHOLE = host.image_mask(host.Frame(SIZE))


def palette_file(numbers, colour=lambda value: (value, 255 - value, 7)):
  """A PNG with a palette, whose indices are `numbers`."""
  image = Image.fromarray(numbers, "L").convert("P")
  image.putpalette([part for value in range(256) for part in colour(value)])
  file = io.BytesIO()
  image.save(file, "PNG")
  return file.getvalue()


def write_pairs(root, masks, classes=""):
  """A mask folder of images that differ, with these masks {name: file}."""
  for folder in ("images", "masks"):
    (root / folder).mkdir(parents=True)
  for i, (name, mask) in enumerate(masks.items()):
    (root / "images" / f"{name}.png").write_bytes(encoded(smooth(SIZE, SIZE, i)))
    (root / "masks" / f"{name}.png").write_bytes(mask)
  if classes:
    (root / "classes.txt").write_text(classes)
  return root


def opened(root, **options):
  return sources.make("mask_folder", data_dir=str(root), **options)


def masks_of(source, transform=WHOLE):
  return [transform(None, source[i])["mask"] for i in range(len(source))]


def test_a_table_maps_what_is_stored_and_refuses_what_it_does_not_know():
  stored = np.array([[0, 3], [7, 255]], np.uint8)
  values = value_table({0: 2, 3: 0, 7: 255})
  for mask in (stored, encoded(stored), palette_file(stored)):
    found = decode_classes({"mask": mask, "mask_values": values})
    assert found.dtype == np.uint8 and found.tolist() == [[2, 0], [255, 255]]
    assert decode_classes({"mask": mask}).tolist() == stored.tolist()
  wrong = np.array([[0, 4, 4], [9, 3, 4]], np.uint8)
  with pytest.raises(
    DecodeError, match=r"values that the data set does not define: 4 \(3 pixels\), 9 \(1 pixels\)$"
  ):
    decode_classes({"mask": wrong, "mask_values": values})
  many = np.arange(20, 29, dtype=np.uint8)[None]
  with pytest.raises(DecodeError, match=r"20 \(1 pixels\), .*24 \(1 pixels\) and 4 more$"):
    decode_classes({"mask": many, "mask_values": values})


def test_classes_are_numbered_without_those_that_are_ignored():
  found = named_values({0: "Void", 1: "sky", 4: "road", 9: "unlabelled"})
  assert found.names == ("sky", "road")
  assert {v: int(n) for v, n in enumerate(found.values) if n >= 0} == {0: 255, 1: 0, 4: 1, 9: 255, 255: 255}
  for wrong, message in (
    ({1: "sky", 2: "sky"}, "the class 'sky' occurs twice"),
    ({300: "sky"}, "mask value 300; a mask stores values from 0 to 255"),
  ):
    with pytest.raises(ValueError, match=message):
      named_values(wrong)
  assert UNKNOWN.values is None and UNKNOWN.names == ()


def test_a_class_file_defines_the_values(tmp_path):
  mask = np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 4
  mask = np.where(mask == 3, 255, mask).astype(np.uint8)
  root = write_pairs(tmp_path, {"grey": encoded(mask), "palette": palette_file(mask)})
  plain = opened(root)
  assert plain.num_classes == 0 and all((found == mask).all() for found in masks_of(plain))
  (root / "classes.txt").write_text("sky\n\nignore\nbackground\n")
  source = opened(root)
  assert source.num_classes == 2 and source.class_names == ("sky", "background")
  for found in masks_of(source):
    assert (found == np.array([0, 255, 1, 255])[np.minimum(mask, 3)]).all()
  (root / "classes.txt").write_text("sky\nroad\n")
  for i in range(2):
    with pytest.raises(DecodeError, match=r"does not define: 2 \(64 pixels\)"):
      WHOLE(None, opened(root)[i])


def test_colours_are_classes_if_the_file_gives_colours(tmp_path):
  colours = np.array([[64, 0, 128], [0, 0, 0], [128, 128, 64], [0, 0, 255]], np.uint8)
  mask = np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 4
  files = {
    "colour": encoded(colours[mask]),
    "palette": palette_file(mask.astype(np.uint8), lambda v: colours[v % 4]),
  }
  classes = "64 0 128\tCar one\n0 0 0\t\tVoid\n128  128 64\tTree\n0 0 255 Sky\n"
  root = write_pairs(tmp_path / "a", files, classes)
  (root / "classes.txt").rename(root / "label_colors.txt")  # as CamVid calls it
  source = opened(root)
  assert source.class_names == ("Car one", "Tree", "Sky")
  for found in masks_of(source):
    assert (found == np.array([0, 255, 1, 2])[mask]).all()
  file = root / "label_colors.txt"
  file.write_text("64 0 128 Car\n0 0 0 Void\n128 128 64 Tree\n")
  with pytest.raises(
    DecodeError, match=r"colours that the data set does not define: \(0, 0, 255\) \(64 pixels\)"
  ):
    WHOLE(None, opened(root)[0])
  for text, message in (
    ("1 2 3 a\nb\n", "label_colors.txt: class 2, 'b', has no colour, but others have"),
    ("1 2 3 a\n1 2 3 b\n", "class 2, '1 2 3 b': the colour occurs twice"),
    ("1 2 333 a\n", "the colour is out of range"),
    ("1 2 3 a\n4 5 6 a\n", "the class 'a' occurs twice"),
  ):
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
      read_class_file(file)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
  """20 pairs, of which 03 has a wrong value, 07 no mask and 11 a mask of another size."""
  good = encoded(np.zeros((SIZE, SIZE), np.uint8))
  masks = {f"{i:02}": good for i in range(20)}
  masks["03"] = encoded(np.full((SIZE, SIZE), 5, np.uint8))
  masks["11"] = encoded(np.zeros((SIZE, SIZE - 1), np.uint8))
  root = write_pairs(tmp_path_factory.mktemp("faulty"), masks, "sky\nroad\n")
  (root / "masks" / "07.png").unlink()
  return root


REASONS = {
  "03": r"values that the data set does not define: 5 (256 pixels)",
  "07": r"it has no mask masks/07.png; add it or leave the image out",
  "11": r"the mask has 15x16 pixels, the image 16x16",
}


@pytest.mark.parametrize("form", ["threads", "processes", "transformed", "decoded"])
def test_wrong_masks_are_named_counted_and_refused_above_the_share(faulty, form):
  source, transform = opened(faulty), WHOLE
  if form == "transformed":
    source, transform = sources.cached(source, transform=WHOLE), Stored(WHOLE.elements)
  elif form == "decoded":
    source = sources.cached(source)
  settings = dict(batch_size=10, transform=transform, workers=2 if form == "processes" else 0)
  with pipeline.eval_batches(source, max_bad_fraction=0.15, **settings) as batches:
    valid = np.concatenate([batch["valid"] for batch in batches])
  assert np.flatnonzero(~valid).tolist() == [3, 7, 11]
  assert {name[-6:-4] for name in batches.bad} == set(REASONS)
  for name, reason in batches.bad.items():
    assert REASONS[name[-6:-4]] in reason
  with pytest.raises(ValueError, match="3 of 20 images cannot be decoded, 2 are allowed"):
    with pipeline.eval_batches(source, max_bad_fraction=0.1, **settings) as batches:
      list(batches)


def test_a_value_is_mapped_once(tmp_path):
  """The table 0 -> ignored, 1 -> 0, 2 -> 1 would change the masks again if it were applied twice."""
  mask = np.repeat(np.arange(SIZE, dtype=np.uint8)[None] % 3, SIZE, 0)
  source = opened(write_pairs(tmp_path, {"a": encoded(mask)}, "void\nsky\nroad\n"))
  expected = np.array([255, 0, 1])[mask]
  held = sources.cached(source)
  assert held.fields == source.fields and "mask_values" not in held[0]
  for found in (source, held):
    assert (WHOLE(None, found[0])["mask"] == expected).all()
  stored = sources.cached(source, transform=WHOLE)
  assert (stored[0]["mask"] == expected).all()


def test_images_or_masks_that_are_all_missing_are_refused_at_opening(tmp_path):
  root = write_pairs(tmp_path, {"a": encoded(np.zeros((SIZE, SIZE), np.uint8))})
  shutil.rmtree(root / "masks")
  (root / "masks").mkdir()
  with pytest.raises(
    ValueError, match="not one mask of the 1 pairs of the split 'train' exists in .*masks/a.png"
  ):
    opened(root)
  (root / "images" / "a.png").unlink()
  with pytest.raises(ValueError, match="images holds no image; known file name extensions"):
    opened(root)
