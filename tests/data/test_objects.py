"""Boxes and masks of objects: VOC's XML and COCO's JSON, what is broken in them, and the host transforms."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from ssl_jax import recipe
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.data import host, instance_masks, pipeline, sources, voc_boxes
from ssl_jax.data.decode import DecodeError
from ssl_jax.run.assembly import open_data

from .conftest import encoded, smooth

WIDTH, HEIGHT = 40, 30


def put_xml(root, stem, objects, *, size=(WIDTH, HEIGHT), image=True):
  """Writes an image and its annotation; objects are (name, xmin, ymin, xmax, ymax, difficult or None)."""
  for folder in ("JPEGImages", "Annotations"):
    (root / folder).mkdir(parents=True, exist_ok=True)
  if image:
    (root / "JPEGImages" / f"{stem}.jpg").write_bytes(encoded(smooth(HEIGHT, WIDTH), "JPEG"))
  items = ""
  for name, *sides, difficult in objects:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>" if name == "person" else ""
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    box = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True))
    items += f"<object>{part}<name>{name}</name>{flag}<bndbox>{box}</bndbox></object>"
  shape = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
  (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{shape}{items}</annotation>")


def put_list(root, split, *stems):
  folder = root / "ImageSets" / "Main"
  folder.mkdir(parents=True, exist_ok=True)
  (folder / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))


def write_voc(root, year=2007):
  put_xml(root, f"{year}_a", [("dog", 1, 1, 10, 20, 0), ("person", 5.5, 6, 40, 30, 1)])
  put_xml(root, f"{year}_b", [("cat", 39, 29, 60, 31, None), ("sofa", 41, 1, 60, 9, 0)], size=None)
  put_xml(root, f"{year}_c", [("cat", 39, 29, 60, 31, None), ("sofa", 41, 1, 60, 9, 0)])
  put_xml(root, f"{year}_d", [])
  put_list(root, "trainval", *(f"{year}_{x}" for x in "cabd"))
  put_list(root, "test", f"{year}_a")
  put_list(root, "cat_trainval", f"{year}_a  1", f"{year}_b -1")


def opened(kind, root, split="train", **options):
  return sources.make(kind, data_dir=str(root), split=split, **options)


def test_voc_boxes_are_continuous_and_repaired(tmp_path):
  write_voc(tmp_path)
  source = opened("voc_boxes", tmp_path, "trainval")
  assert source.class_names == voc_boxes.CLASSES and source.num_classes == 20 and len(source) == 4
  assert [source.name(i)[-5] for i in range(4)] == list("cabd")  # the order of the list
  record = source[1]
  assert record["boxes"].tolist() == [[0, 0, 10, 20], [4.5, 5, 40, 30]] and record["label"] == -1
  assert record["boxes_class"].tolist() == [11, 14] and record["boxes_difficult"].tolist() == [False, True]
  assert record["boxes_area"].tolist() == [200, 887.5] and not record["boxes_crowd"].any()
  assert source[0]["boxes"].tolist() == [[38, 28, 40, 30]]  # clipped, and the sofa is outside
  assert len(source[2]["boxes"]) == 2 and len(source[3]["boxes"]) == 0  # of a size that is not known
  assert source.most_rows == {"boxes": 2} and source.fields == tuple(record)
  assert source.left_out == "parts of 1 box outside their images, 1 box without area"
  fewer = opened("voc_boxes", tmp_path, "trainval", empty="drop")
  assert len(fewer) == 3 and fewer.left_out.endswith("1 box without area, 1 image without objects")
  assert "3 images of 20 classes; not read: parts of 1 box" in fewer.summary()


def test_years_of_voc_are_joined(tmp_path):
  for year in (2007, 2012):
    write_voc(tmp_path / "VOCdevkit" / f"VOC{year}", year)
  for root in (tmp_path, tmp_path / "VOCdevkit"):
    source = opened("voc_boxes", root, "2007/trainval+2012/trainval[:50%]")
    assert len(source) == 6 and "2012" in source.name(4) and "2007" in source.name(3)
  assert len(opened("voc_boxes", tmp_path, "2007/test")) == 1
  with pytest.raises(ValueError, match="no split 'trainval'.*2007/trainval"):
    opened("voc_boxes", tmp_path, "trainval")
  with pytest.raises(ValueError, match="has no split '2007/cat_trainval'"):
    opened("voc_boxes", tmp_path, "2007/cat_trainval")
  shutil.rmtree(tmp_path / "VOCdevkit" / "VOC2012")
  for split in ("trainval", "2007/trainval"):
    assert len(opened("voc_boxes", tmp_path, split)) == 4


def test_what_is_broken_in_voc_is_named(tmp_path):
  with pytest.raises(ValueError, match="no folder ImageSets/Main in it, nor in a VOC2007"):
    opened("voc_boxes", tmp_path)
  write_voc(tmp_path)
  put_list(tmp_path, "none", "2007_a", "2007_x", "2007_y")
  with pytest.raises(ValueError, match=r"2 of 3 images have no annotation, the first is .*/2007_x.xml"):
    opened("voc_boxes", tmp_path, "none")
  put_xml(tmp_path, "lost", [], image=False)
  put_list(tmp_path, "lost", "lost")
  with pytest.raises(ValueError, match="the image JPEGImages/lost.jpg is not in"):
    opened("voc_boxes", tmp_path, "lost")
  with pytest.raises(ValueError, match="none of its 1 images has an object"):
    put_list(tmp_path, "empty", "2007_d")
    opened("voc_boxes", tmp_path, "empty", empty="drop")
  for text, message in (
    ("<annotation>", r"bad.xml: no element found"),
    ("<a><object><name>dig</name><bndbox/></object></a>", "bad.xml: an object has no <bndbox><xmin>"),
    ("<a><object><bndbox><xmin>x</xmin></bndbox></object></a>", "bad.xml: could not convert"),
  ):
    put_list(tmp_path, "bad", "bad")
    put_xml(tmp_path, "bad", [])
    (tmp_path / "Annotations" / "bad.xml").write_text(text)
    with pytest.raises(ValueError, match=message):
      opened("voc_boxes", tmp_path, "bad")
  put_xml(tmp_path, "bad", [("dig", 1, 1, 3, 3, 0)])
  with pytest.raises(ValueError, match="class 'dig', which VOC does not have; did you mean 'dog'"):
    opened("voc_boxes", tmp_path, "bad")


DISK = np.hypot(*np.mgrid[-10:10, -12:12]) < 8


def write_coco(root, annotations, sizes=((HEIGHT, WIDTH), (20, 24), (20, 24))):
  (root / "images").mkdir(parents=True, exist_ok=True)
  images = []
  for i, (height, width) in enumerate(sizes):
    (root / "images" / f"{i}.png").write_bytes(encoded(smooth(height, width)))
    images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
  categories = [{"id": 5, "name": "bird"}, {"id": 2, "name": "boat"}]
  stored = {"images": images, "annotations": annotations, "categories": categories}
  (root / "train.json").write_text(json.dumps(stored))


def annotation(image, box, category=5, **more):
  return {"id": 7, "image_id": image, "category_id": category, "bbox": box, **more}


def test_broken_boxes_of_coco_are_fixed_or_named(tmp_path):
  good = annotation(0, [1, 2, 3, 4], iscrowd=0, difficult=1, area=11.5)
  broken = [
    good,
    annotation(0, [-5, 2, 10, 4], 2, ignore=1),
    annotation(0, [39.9, 2, 0.3, 4]),  # rounding: 0.2 pixels too far are not counted
    annotation(0, [50, 2, 10, 4]),
    annotation(1, [2, 2, 0, 4]),
    annotation(1, [2, 2, -3, 4]),
    annotation(1, [2, float("nan"), 3, 4]),
    annotation(2, [0, 0, 24, 20], iscrowd=1),
  ]
  write_coco(tmp_path, broken)
  source = opened("coco", tmp_path)
  first = source[0]
  np.testing.assert_allclose(first["boxes"], [[1, 2, 4, 6], [0, 2, 5, 6], [39.9, 2, 40, 6]], rtol=1e-6)
  assert first["boxes_difficult"].tolist() == [True, True, False] and first["boxes_area"][0] == 11.5
  assert first["boxes_class"].tolist() == [1, 0, 1] and len(source[1]["boxes"]) == 0
  assert source.left_out == "parts of 1 box outside their images, 4 boxes without area"
  assert len(opened("coco", tmp_path, empty="drop")) == 1  # a crowd alone is not an object to learn from
  for wrong, message in (
    (annotation(0, [1, 2, 3, 4], 9), "annotation 7 has category_id 9, which is not among the 2 categories"),
    (annotation(8, [1, 2, 3, 4]), "annotation 7 has image_id 8, which is not among the 3 images"),
    (annotation(0, [1, 2, 3]), "has a bbox of 3 numbers"),
    (annotation(0, [1, 2, 3, 4], segmentation="x"), "annotation 7: a segmentation must be polygons or run"),
    (annotation(0, [1, 2, 3, 4], segmentation=[[1, 2, 3]]), "annotation 7: cannot reshape"),
    (
      annotation(0, [1, 2, 3, 4], segmentation={"size": [20, 24], "counts": [480]}),
      "annotation 7 has 20x24 pixels .* but its image 0.png 30x40",
    ),
  ):
    write_coco(tmp_path, [wrong])
    with pytest.raises(ValueError, match=message):
      opened("coco", tmp_path)
  write_coco(tmp_path, [good, annotation(1, [1, 2, 3, 4], segmentation=[[1, 2, 3, 2, 3, 4]])])
  partly = opened("coco", tmp_path)
  assert "instances" not in partly.fields and partly.left_out == "masks, which 1 of 2 boxes lack"


def masks_of(form):
  """A disk in the middle of an image of 20 x 24, and a crowd beside it."""
  crowd = np.zeros_like(DISK)
  crowd[2:6, :5] = True
  encoded_masks = [instance_masks.from_pixels(mask) for mask in (DISK, crowd)]
  if form == "compressed":
    return [instance_masks.to_coco(mask) for mask in encoded_masks]
  runs = [instance_masks.decompress(mask.counts).tolist() for mask in encoded_masks]
  plain = [{"size": [20, 24], "counts": counts} for counts in runs]
  if form == "runs":
    return plain
  angle = np.linspace(0, 2 * np.pi, 60)
  return [np.stack([12.5 + 7.7 * np.cos(angle), 10.5 + 7.7 * np.sin(angle)], 1).ravel().tolist()], plain[1]


@pytest.mark.parametrize("form", ["runs", "compressed", "polygons"])
def test_masks_lie_in_the_frames_of_their_boxes(form, tmp_path):
  disk, crowd = masks_of(form)
  box = [5, 3, 15, 15]
  annotations = [
    annotation(1, box, segmentation=disk),
    annotation(1, [0, 2, 5, 4], segmentation=crowd, iscrowd=1),
  ]
  write_coco(tmp_path, annotations, sizes=((HEIGHT, WIDTH), (20, 24)))
  source = opened("coco", tmp_path)
  assert source.fields[-1] == "instances" and not source.left_out
  pixels = instance_masks.pixels(source[1]["instances"][0])
  assert (pixels != DISK).mean() < (0.04 if form == "polygons" else 1e-9)
  transform = host.image_instances(host.Frame(64), max_boxes=3, mask_size=15)
  made = transform(None, source[1])
  assert made["boxes_mask"].shape == (3, 15, 15) and made["boxes_mask"].dtype == np.uint8
  np.testing.assert_array_equal(made["boxes_mask"][0], pixels[3:18, 5:20])  # a cell is a pixel
  assert made["boxes_mask"][1].all() and not made["boxes_mask"][2].any()
  assert (
    made["boxes_crowd"].tolist() == [False, True, False] and not transform(None, source[0])["boxes"].any()
  )
  half = host.image_instances(host.Frame(12), max_boxes=3, mask_size=15)(None, source[1])
  np.testing.assert_allclose(half["boxes"][0], [2.5, 1.5, 10, 9])
  np.testing.assert_array_equal(half["boxes_mask"], made["boxes_mask"])  # at the resolution of the file
  cut = host.image_instances(host.Frame(20), fit="crop", max_boxes=3, mask_size=20)(None, source[1])
  np.testing.assert_allclose(cut["boxes"][1], [0, 2, 3, 6])
  assert cut["boxes_mask"][1].all()
  narrow = host.image_instances(host.Frame(0), fit="crop", max_boxes=3, mask_size=15, height=20, width=10)
  made = narrow(None, source[1])
  np.testing.assert_allclose(made["boxes"][0], [0, 3, 10, 18])  # columns 7 to 17 of the image
  expected = np.repeat(pixels[3:18, 7:17], 15, 1).reshape(15, 15, 10).mean(-1) >= 0.5
  np.testing.assert_array_equal(made["boxes_mask"][0], expected)


def test_instances_need_masks_of_the_size_of_the_image(tmp_path):
  disk, _ = masks_of("runs")
  write_coco(tmp_path, [annotation(1, [5, 3, 14, 14], segmentation=disk)])
  (tmp_path / "images" / "1.png").write_bytes(encoded(smooth(24, 20)))
  source = opened("coco", tmp_path)
  transform = host.image_instances(host.Frame(24))
  with pytest.raises(DecodeError, match="the mask has 24x20 pixels, the image 20x24"):
    transform(None, source[1])
  write_coco(tmp_path, [annotation(1, [5, 3, 14, 14])])
  with pytest.raises(ValueError, match="needs 'instances' in every record, but the data set has"):
    host.check_source("image_instances", transform, opened("coco", tmp_path))
  with pytest.raises(ValueError, match="config.host.mask_size is 0; use a positive number"):
    host.make("image_instances", host.Frame(8), mask_size=0)
  with pytest.raises(ValueError, match="config.data.empty is 'drop', but 'folder' does not say"):
    opened("folder", tmp_path, empty="drop")


def test_a_config_drops_images_without_objects_and_caches_masks(tmp_path):
  disk, crowd = masks_of("runs")
  write_coco(tmp_path, [annotation(1, [5, 3, 14, 14], segmentation=disk)])
  config = check(
    TrainConfig,
    recipe(
      method=dict(name="simclr"),
      encoder=dict(name="resnet10", width=8),
      augment=dict(name="moco_v2", views=2, size=24),
      optimizer=dict(learning_rate=0.1),
      host=dict(name="image_instances", max_boxes=2, mask_size=7),
      data=dict(name="coco", data_dir=str(tmp_path), size=24, cache=True, empty="drop"),
      batch_size=1,
      epochs=1.0,
    ),
  )
  source, transform = open_data(config)
  assert len(source) == 1 and transform(None, source[0])["boxes_mask"].shape == (2, 7, 7)
  with pipeline.eval_batches(source, batch_size=1, transform=transform, workers=2) as batches:
    assert next(batches)["boxes_mask"].sum() > 20


def unpack(shared_data, name, root):
  for split in ("train", "val"):
    for path in sorted((shared_data / name).glob(f"{split}*")):
      if path.suffix == ".zip":
        folder = root / (split if path.stem == split else path.stem)
        with zipfile.ZipFile(path) as archive:
          archive.extractall(folder)
      elif "_detection" not in path.name or name == "voc2008":
        shutil.copy(path, root)


def test_real_voc_and_both_forms_agree(shared_data, tmp_path):
  """VOC 2008 is there in COCO's form; the same boxes, written as XML, are read alike."""
  root = tmp_path / "coco"
  root.mkdir()
  unpack(shared_data, "voc2008", root)
  source = opened("coco", root, "train")
  assert source.class_names == voc_boxes.CLASSES and "instances" not in source.fields
  records = [source[i] for i in range(len(source))]
  assert sum(len(r["boxes"]) for r in records) == 1100
  assert sum(r["boxes_difficult"].sum() for r in records) == 262
  for i, record in enumerate(records):
    rows = zip(record["boxes"], record["boxes_class"], record["boxes_difficult"], strict=True)
    objects = [
      (voc_boxes.CLASSES[c], *map(repr, map(float, box + [1, 1, 0, 0])), int(d)) for box, c, d in rows
    ]
    put_xml(tmp_path / "xml", str(i), objects, size=None)
  put_list(tmp_path / "xml", "train", *map(str, range(len(records))))
  again = opened("voc_boxes", tmp_path / "xml")
  assert again.most_rows == source.most_rows
  for i, record in enumerate(records):
    for name in ("boxes", "boxes_class", "boxes_difficult"):
      np.testing.assert_allclose(again[i][name], record[name], atol=1e-4)


@pytest.mark.parametrize(
  "name, split, images, objects", [("coco256", "train", 100, 746), ("penn_fudan", "val", 34, 80)]
)
def test_real_instances(shared_data, tmp_path, name, split, images, objects):
  """The stored boxes frame the stored masks, and the masks of the transform have the stored areas."""
  unpack(shared_data, name, tmp_path)
  source = opened("coco", tmp_path, split)
  assert len(source) == images and source.fields[-1] == "instances" and not source.left_out
  transform = host.image_instances(host.Frame(400), max_boxes=source.most_rows["boxes"], mask_size=40)
  found = 0
  for i in range(len(source)):
    record = source[i]
    made = transform(None, record)
    for j, mask in enumerate(record["instances"]):
      pixels = instance_masks.pixels(mask)
      x1, y1, x2, y2 = record["boxes"][j].round().astype(int)
      assert pixels.sum() == pixels[y1:y2, x1:x2].sum() == record["boxes_area"][j]
      area = (x2 - x1) * (y2 - y1)
      assert abs(made["boxes_mask"][j].mean() * area - pixels.sum()) < 0.1 * area
      found += 1
  assert found == objects
