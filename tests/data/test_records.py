"""Records with masks and padded boxes: in threads and processes, cached, resumed, and with broken files."""

import io
import json
import pickle
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from ssl_jax import recipe
from ssl_jax.config.schema import TrainConfig, check, to_json
from ssl_jax.core import DataSpec
from ssl_jax.data import decode, host, pipeline, sources, splits
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.elements import ShapeDtype
from ssl_jax.data.fit import Fit
from ssl_jax.data.memory import Stored
from ssl_jax.data.shared_buffers import buffer_bytes, make_shared_buffers
from ssl_jax.run.assembly import assemble, open_data

from .conftest import encoded, smooth

SIZE, COUNT = 24, 21


def write_masks(root):
  """Photographs of many sizes with masks that encode the position of every pixel: class = column // 4."""
  (root / "images").mkdir(parents=True)
  (root / "masks").mkdir()
  for i in range(COUNT):
    height, width = 20 + i, 40 - i
    image = smooth(height, width, phase=i)
    image[:, :, 0] = 5 * np.arange(width)[None]
    (root / "images" / f"{i:02}.jpg" if i % 2 else root / "images" / f"{i:02}.png").write_bytes(
      encoded(image, "JPEG", quality=95) if i % 2 else encoded(image)
    )
    mask = np.broadcast_to(np.arange(width) // 4, (height, width)).astype(np.uint8)
    (root / "masks" / f"{i:02}.png").write_bytes(encoded(mask))
  (root / "classes.txt").write_text("\n".join(f"column {c}" for c in range(10)) + "\n")


def write_coco(root):
  """Grey photographs with white rectangles where the boxes are; image i has i % 4 of them."""
  (root / "train").mkdir(parents=True)
  images, annotations, draw = [], [], np.random.default_rng(0)
  for i in range(COUNT):
    height, width = 30 + i, 50 - i
    pixels = np.full((height, width, 3), 40, np.uint8)
    for _ in range(i % 4):
      x, y = draw.integers(0, width - 12), draw.integers(0, height - 12)
      w, h = draw.integers(4, 12, 2)
      pixels[y : y + h, x : x + w] = 250
      annotations.append(
        {
          "id": len(annotations),
          "image_id": 100 + i,
          "category_id": int(draw.choice([7, 3, 90])),
          "bbox": [int(x), int(y), int(w), int(h)],
          "iscrowd": int(i == 3),
        }
      )
    (root / "train" / f"{i}.png").write_bytes(encoded(pixels))
    images.append({"id": 100 + i, "file_name": f"{i}.png", "width": width, "height": height})
  categories = [{"id": c, "name": f"thing {c}"} for c in (90, 3, 7)]
  stored = {"images": images, "annotations": annotations, "categories": categories}
  (root / "annotations").mkdir()
  (root / "annotations" / "instances_train.json").write_text(json.dumps(stored))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  root = tmp_path_factory.mktemp("records")
  write_masks(root / "mask_folder")
  write_coco(root / "coco")
  return root


TRANSFORMS = {
  "mask_folder": host.image_mask(host.Frame(SIZE)),
  "coco": host.image_boxes(host.Frame(SIZE), max_boxes=3),
}
KINDS = sorted(TRANSFORMS)


def open_kind(folders, kind):
  return sources.make(kind, data_dir=str(folders / kind))


def read(source, kind, **options):
  settings = {"batch_size": 6, "seed": 3, "start": 0, "stop": 7, "transform": TRANSFORMS[kind], **options}
  with pipeline.train_batches(source, **settings) as batches:
    return list(batches)


def assert_same(found, expected):
  assert len(found) == len(expected)
  for a, b in zip(found, expected, strict=True):
    assert list(a) == list(b)
    for name in a:
      assert a[name].dtype == b[name].dtype
      np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_hold_what_the_transform_declares(folders, kind):
  source = open_kind(folders, kind)
  batch = read(source, kind, stop=1)[0]
  elements = TRANSFORMS[kind].elements
  assert list(batch) == list(elements)
  for name, spec in elements.items():
    assert batch[name].shape == (6, *spec.shape) and batch[name].dtype == spec.dtype
  order = np.random.default_rng((3, 0)).permutation(COUNT)[:6]
  for row, i in enumerate(order):
    alone = TRANSFORMS[kind](None, source[int(i)])
    for name in elements:
      np.testing.assert_array_equal(batch[name][row], alone[name])


@pytest.mark.parametrize("kind", KINDS)
def test_threads_processes_memory_and_resumption_change_nothing(folders, kind):
  source = open_kind(folders, kind)
  expected = read(source, kind, threads=1)
  assert_same(read(source, kind, threads=4), expected)
  assert_same(read(source, kind, workers=2), expected)
  assert_same(read(source, kind, start=4), expected[4:])
  held = sources.cached(source, transform=TRANSFORMS[kind])
  stored = Stored(TRANSFORMS[kind].elements)
  assert_same(read(held, kind, transform=stored), expected)
  assert_same(read(pickle.loads(pickle.dumps(held)), kind, transform=stored, workers=2), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_load_the_rows_of_their_devices(folders, kind):
  source = open_kind(folders, kind)
  whole = read(source, kind)
  for rows in (range(0, 6, 2), range(1, 6, 2), [0, 5]):
    part = read(source, kind, positions=rows)
    assert_same(part, [{name: leaf[list(rows)] for name, leaf in batch.items()} for batch in whole])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_broken_files_are_counted_and_replaced_or_marked(folders, kind, workers, tmp_path):
  root = tmp_path / kind
  shutil.copytree(folders / kind, root)
  broken = root / ("masks/04.png" if kind == "mask_folder" else "train/4.png")
  broken.write_bytes(broken.read_bytes()[:50])
  source = sources.make(kind, data_dir=str(root))
  transform = TRANSFORMS[kind]
  train = pipeline.train_batches(
    source, batch_size=7, seed=0, start=0, stop=3, transform=transform, workers=workers, max_bad_fraction=0.1
  )
  with train:
    found = list(train)
  assert len(train.bad) == 1 and "4." in next(iter(train.bad))
  after = transform(None, source[5])  # the replacement of the broken record
  rows = [row for batch in found for row in range(7) if np.array_equal(batch["image"][row], after["image"])]
  assert len(rows) == 2
  evaluation = pipeline.eval_batches(
    source, batch_size=7, transform=transform, workers=workers, max_bad_fraction=0.1
  )
  with evaluation:
    batches = list(evaluation)
  valid = np.concatenate([batch["valid"] for batch in batches])
  assert np.flatnonzero(~valid).tolist() == [4]
  assert not any(np.any(batches[0][name][4]) for name in transform.elements)
  with pytest.raises(ValueError, match="1 of 21 images cannot be decoded, 0 are allowed"):
    read(source, kind, stop=5, max_bad_fraction=0.01)


def test_image_and_mask_keep_their_places(folders):
  """The red value of a pixel and its class both encode its column, before and after the image is fitted."""
  source = open_kind(folders, "mask_folder")
  assert source.num_classes == 10 and source.class_names[9] == "column 9" and source.fields[1] == "mask"
  for fit in ("pad", "crop"):
    transform = host.image_mask(host.Frame(SIZE), fit=fit)
    for i in range(0, COUNT, 2):  # PNG: exact colours
      made = transform(None, source[i])
      height, width = made["image_size"]
      column = made["image"][:height, :width, 0] / 5 / 4
      inside = made["mask"][:height, :width]
      assert np.abs(column - (inside + 0.4)).max() < 0.8
      if fit == "crop":
        assert (height, width) == (SIZE, SIZE)
      else:
        assert max(height, width) == SIZE
        assert (made["mask"][height:] == 255).all() and (made["mask"][:, width:] == 255).all()
        assert not made["image"][height:].any() and not made["image"][:, width:].any()


def test_boxes_move_with_their_image(folders):
  source = open_kind(folders, "coco")
  assert source.class_names == ("thing 3", "thing 7", "thing 90") and source.most_rows == {"boxes": 3}
  total = 0
  for i in range(COUNT):
    made = TRANSFORMS["coco"](None, source[i])
    valid = made["boxes_valid"]
    assert valid.sum() == i % 4 and valid[: i % 4].all() and not made["boxes"][~valid].any()
    assert made["boxes_crowd"][valid].all() == (i == 3 or not valid.any())
    height, width = made["image_size"]
    for x1, y1, x2, y2 in made["boxes"][valid]:
      assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
      inside = made["image"][int(np.ceil(y1)) : int(y2), int(np.ceil(x1)) : int(x2), 0]
      assert inside.size == 0 or inside.mean() > 200
      total += 1
    white = (made["image"][..., 0] > 200).sum()
    area = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in made["boxes"][valid])
    assert white <= area + 30
  assert total == sum(i % 4 for i in range(COUNT))


def test_a_crop_clips_boxes_and_drops_those_outside():
  fit = Fit(10, "crop").check()
  place = fit.place(40, 20)  # 20 x 10, of which columns 5 to 15 remain
  boxes, kept = fit.boxes(np.array([[0, 0, 8, 8], [8, 4, 20, 12], [36, 0, 40, 8]], np.float32), place)
  assert kept.tolist() == [1]
  np.testing.assert_allclose(boxes[1], [0, 2, 5, 6])


@pytest.mark.parametrize("fit, size", [("pad", 64), ("pad", 16), ("crop", 16), ("crop", 64)])
def test_any_proportion_fits(fit, size):
  for height, width in ((1, 200), (200, 1), (3, 4), (64, 64)):
    made = host.image_mask(host.Frame(size), fit=fit)(
      None, {"image": smooth(height, width), "mask": np.ones((height, width), np.uint8)}
    )
    h, w = made["image_size"]
    assert 1 <= h <= size and 1 <= w <= size
    assert (made["mask"][:h, :w] == 1).all()


def test_masks_are_numbers_not_colours(tmp_path):
  numbers = np.arange(16, dtype=np.uint8).reshape(4, 4)
  palette = Image.fromarray(numbers).convert("P")
  palette.putpalette([255 - i for i in range(256) for _ in range(3)])
  file = io.BytesIO()
  palette.save(file, "PNG")
  np.testing.assert_array_equal(decode.decode_mask(file.getvalue()), numbers)
  np.testing.assert_array_equal(decode.decode_mask(encoded(numbers)), numbers)
  with pytest.raises(
    DecodeError, match="a mask must have one channel of 8 bits or a palette, but its mode is 'RGB'"
  ):
    decode.decode_mask(encoded(smooth(4, 4)))
  with pytest.raises(DecodeError, match="the mask has 5x4 pixels, the image 4x4"):
    host.image_mask(host.Frame(8))(None, {"image": smooth(4, 4), "mask": np.zeros((4, 5), np.uint8)})


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_masks_of_few_bits_hold_their_values(bits):
  """Pillow writes grey levels in 8 bits, or 1; the others are assembled here."""
  numbers = (np.arange(24).reshape(3, 8) % 2**bits).astype(np.uint8)
  spread = np.unpackbits(numbers[..., None], axis=-1)[..., 8 - bits :].reshape(3, -1)
  lines = b"".join(b"\0" + np.packbits(row).tobytes() for row in spread)

  def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

  header = struct.pack(">IIBBBBB", 8, 3, bits, 0, 0, 0, 0)
  parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
  np.testing.assert_array_equal(decode.decode_mask(b"\x89PNG\r\n\x1a\n" + b"".join(parts)), numbers)


def test_shared_buffers_lay_arrays_out_by_their_elements():
  elements = {
    "a": ShapeDtype((3,), np.float32),
    "b": ShapeDtype((), np.bool_),
    "c": ShapeDtype((2, 2), np.int32),
  }
  assert buffer_bytes(elements, 5) == 64 + 64 + 128
  buffers = make_shared_buffers(1, elements, 5)
  try:
    for number in range(3):
      arrays = buffers.arrays(number)
      for i, (name, array) in enumerate(arrays.items()):
        assert array.shape == (5, *elements[name].shape) and array.dtype == elements[name].dtype
        array[...] = 10 * number + i
    for number in range(3):
      found = buffers.copy_out(number)
      assert [leaf.ravel()[0] for leaf in found.values()] == [
        10 * number,
        bool(10 * number + 1),
        10 * number + 2,
      ]
      assert all((leaf == leaf.ravel()[0]).all() for leaf in found.values())
    del arrays, array
  finally:
    buffers.remove()


def config_of(folders, kind, **host_options):
  return check(
    TrainConfig,
    recipe(
      method=dict(name="simclr"),
      encoder=dict(name="resnet10", width=8),
      augment=dict(name="moco_v2", views=2, size=SIZE),
      optimizer=dict(learning_rate=0.1),
      host=dict(name={"mask_folder": "image_mask", "coco": "image_boxes"}[kind], **host_options),
      data=dict(name=kind, data_dir=str(folders / kind), size=SIZE, cache=True),
      batch_size=4,
      epochs=1.0,
    ),
  )


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_carries_its_elements_to_the_compiled_batch(folders, kind):
  config = config_of(folders, kind)
  source, transform = open_data(config)  # photographs of many sizes, in memory
  assert isinstance(transform, Stored) and source.fields == tuple(transform.elements)
  parts = assemble(config, DataSpec(len(source), source.num_classes, config.batch_size))
  assert parts.data.elements == transform.elements
  assert {name: (leaf.shape, leaf.dtype) for name, leaf in parts.batch.items()} == {
    name: ((4, *spec.shape), np.dtype(spec.dtype)) for name, spec in transform.elements.items()
  }


def test_what_does_not_fit_is_refused_before_anything_is_read(folders):
  with pytest.raises(
    ValueError, match="an image of the data set has 3 boxes, but config.host.max_boxes is 2; use 3"
  ):
    open_data(config_of(folders, "coco", max_boxes=2))
  wrong = config_of(folders, "mask_folder")
  wrong = check(TrainConfig, {**to_json(wrong), "host": {"name": "image_boxes"}})
  with pytest.raises(
    ValueError, match="'image_boxes', which needs 'boxes' in every record, but .* only image, mask"
  ):
    open_data(wrong)
  with pytest.raises(ValueError, match="config.host.max_boxes is 0; use a positive number"):
    host.make("image_boxes", host.Frame(8), max_boxes=0)
  with pytest.raises(ValueError, match="config.host.fit is 'stretch'"):
    host.make("image_mask", host.Frame(8), fit="stretch")
  with pytest.raises(ValueError, match="no host transform is called 'image_box'; did you mean 'image_boxes'"):
    host.make("image_box", host.Frame(8))
  with pytest.raises(ValueError, match="config.host.max_box is unknown; did you mean 'max_boxes'"):
    host.make("image_boxes", host.Frame(8), max_box=3)
  with pytest.raises(
    ValueError, match="crop is 'host', but config.host.name 'image_mask' delivers whole images"
  ):
    host.make("image_mask", host.Frame(8, views=2))


def test_folders_of_pairs_say_what_is_missing(folders, tmp_path):
  with pytest.raises(ValueError, match="is not a folder; give the one that holds the images and masks"):
    sources.make("mask_folder", data_dir=str(tmp_path / "nothing"))
  with pytest.raises(
    ValueError, match="holds no pair of folders with images and masks; it needs one of images"
  ):
    sources.make("mask_folder", data_dir=str(tmp_path))
  root = tmp_path / "pairs"
  shutil.copytree(folders / "mask_folder", root)
  for mask in (root / "masks").iterdir():
    mask.unlink()
  with pytest.raises(
    ValueError, match=r"not one mask of the 21 pairs .* in .*pairs; the first would be masks/00.png. Add them"
  ):
    sources.make("mask_folder", data_dir=str(root))
  split = tmp_path / "split"
  for name in ("train", "val"):
    shutil.copytree(folders / "mask_folder", split / name)
  found = sources.make("mask_folder", data_dir=str(split), split="train[:5]+val")
  assert len(found) == 5 + COUNT and "val" in found.name(5)
  with pytest.raises(ValueError, match="has no split 'test'"):
    sources.make("mask_folder", data_dir=str(split), split="test")


def test_files_that_are_not_in_cocos_form_are_named(folders, tmp_path):
  root = tmp_path / "coco"
  shutil.copytree(folders / "coco", root)
  file = root / "annotations" / "instances_train.json"
  stored = json.loads(file.read_text())
  file.write_text(json.dumps({**stored, "images": stored["images"][:-2]}))
  with pytest.raises(ValueError, match="has image_id 1.., which is not among the 19 images"):
    sources.make("coco", data_dir=str(root))
  file.write_text("{")
  with pytest.raises(ValueError, match="is not in COCO's format: JSONDecodeError"):
    sources.make("coco", data_dir=str(root))
  with pytest.raises(ValueError, match="has no split 'val'.*known: train"):
    sources.make("coco", data_dir=str(root), split="val")
  with pytest.raises(ValueError, match="holds no annotation file of COCO"):
    sources.make("coco", data_dir=str(tmp_path))


def test_real_photographs_with_boxes_and_masks(shared_data, tmp_path):
  """In the files of COCO itself, every box lies in its image and every mask has the size of its image."""
  root = tmp_path / "coco"
  for split in ("train", "val"):
    with zipfile.ZipFile(shared_data / f"coco256/{split}_images.zip") as archive:
      archive.extractall(root / f"{split}_images")
    shutil.copy(shared_data / f"coco256/{split}_detection.json", root)
  source = sources.make("coco", data_dir=str(root), split="train+val")
  assert (
    len(source) == 192
    and source.num_classes == 80
    and sum(len(source[i]["boxes"]) for i in range(192)) == 929 + 409
  )
  transform = host.image_boxes(host.Frame(96), max_boxes=source.most_rows["boxes"])
  with pipeline.eval_batches(source, batch_size=32, transform=transform, workers=2) as batches:
    found = [batch["boxes_valid"].sum() for batch in batches]
  assert sum(found) > 0.99 * (929 + 409)  # a few are thinner than a pixel
  with zipfile.ZipFile(shared_data / "coco256/train_semantic.zip") as archive:
    archive.extractall(tmp_path / "pairs" / "masks")
  masks = {path.stem for path in (tmp_path / "pairs" / "masks").rglob("*.png")}
  (tmp_path / "pairs" / "images").mkdir()
  for path in (root / "train_images").rglob("*.jpg"):
    if path.stem in masks:
      shutil.copy(path, tmp_path / "pairs" / "images")
  pairs = sources.make("mask_folder", data_dir=str(tmp_path / "pairs"))
  transform = host.image_mask(host.Frame(96))
  with pipeline.eval_batches(pairs, batch_size=25, transform=transform) as batches:
    first = next(batches)
  assert len(pairs) == 100 and first["valid"].all() and not batches.bad
  assert len(np.unique(first["mask"])) > 20


def test_mask_folders_in_upper_case_and_what_is_left_out(tmp_path):
  for name in ("Train", "TEST"):
    write_masks(tmp_path / name)
    (tmp_path / name / "images").rename(tmp_path / name / "Images")
    (tmp_path / name / "Images" / "x.bmp").touch()
    (tmp_path / name / "Images" / "more").mkdir()
  source = sources.make("mask_folder", data_dir=str(tmp_path), split="test")
  assert len(source) == COUNT and source.left_out == "1 .bmp, 1 folder (more)"


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_cut_from_a_fixed_shuffled_order(folders, kind):
  def names(split):
    source = sources.make(kind, data_dir=str(folders / kind), split=split)
    assert source.order == splits.SHUFFLED
    return [source.name(i) for i in range(len(source))]

  whole, first, last = names("train"), names("train[:50%]"), names("train[50%:]")
  assert sorted(first + last) == sorted(whole) and first not in (whole[:10], whole[:11])
  assert names("train[:5]+train[5:]") != whole and set(names("train[:5]")) < set(first)
