"""Sources: folders, TFDS data sets, synthetic images, cached images."""

import os
import pickle
import shutil

import numpy as np
import pytest

from ssl_jax.data import decode, host, sources, splits, synthetic, tfds_records, transforms
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.reader import Source

from .conftest import encoded, smooth


def level(source, i):
  """The grey level of image i of `class_folder`."""
  return int(decode.decode(source[i]["image"])[0, 0, 0])


def test_folder_with_classes(class_folder):
  source = sources.make("folder", data_dir=str(class_folder))
  assert len(source) == 10 and source.num_classes == 3 and source.class_names == ("ant", "bee", "cat")
  assert [source[i]["label"] for i in range(10)] == [0] * 4 + [1] * 3 + [2] * 3
  assert [level(source, i) for i in range(10)] == list(range(20, 220, 20))
  assert source.name(4).endswith("bee/0.png") and source.native_shape is None
  with pytest.raises(IndexError):
    source[10]


def test_folder_slices(class_folder):
  """A part is cut class by class: with 4, 3 and 3 images, 80% are 3, 3 and 2."""

  def read(split):
    source = sources.make("folder", data_dir=str(class_folder), split=split)
    assert source.num_classes == 3 and source.order == splits.BY_CLASS
    return [(source[i]["label"], level(source, i)) for i in range(len(source))]

  assert read("train[80%:]+train[:1]") == [(0, 80), (2, 200), (0, 20)]
  whole = read("train")
  for cut in ("30%", "5", "50%", "-2"):
    first, last = read(f"train[:{cut}]"), read(f"train[{cut}:]")
    assert sorted(first + last) == whole and first == sorted(first) and last == sorted(last)
  assert {label for label, _ in read("train[:3]")} == {label for label, _ in read("train[3:6]")} == {0, 1, 2}


def test_parts_of_a_folder_sorted_by_class_hold_every_class_in_proportion(tmp_path):
  for c, count in enumerate((50, 20, 10)):
    (tmp_path / f"{c}").mkdir()
    for i in range(count):
      (tmp_path / f"{c}" / f"{i:02}.png").touch()
  for split, counts in (("[:10%]", (5, 2, 1)), ("[90%:]", (5, 2, 1)), ("[40:56]", (10, 4, 2))):
    source = sources.make("folder", data_dir=str(tmp_path), split=f"train{split}")
    assert tuple(np.bincount(source.reader.labels)) == counts


def test_parts_without_classes_are_cut_from_a_fixed_shuffled_order(tmp_path):
  for i in range(100):
    (tmp_path / f"{i:02}.png").touch()
  first, again, rest = (
    sources.make("folder", data_dir=str(tmp_path), split=split)
    for split in ("train[:30%]", "train[:30]", "train[30%:]")
  )
  assert first.reader.paths == again.reader.paths == tuple(sorted(first.reader.paths))
  assert 20 < np.mean([int(path[:2]) for path in first.reader.paths]) < 80
  assert set(first.reader.paths) | set(rest.reader.paths) == {f"{i:02}.png" for i in range(100)}
  assert len(first) == 30 and len(rest) == 70 and first.order == splits.SHUFFLED


def test_folder_without_classes(tmp_path):
  for name in ("b.PNG", "a.jpeg", "c.webp", "notes.txt", ".hidden.png"):
    (tmp_path / name).write_bytes(encoded(smooth(8, 8)))
  source = sources.make("folder", data_dir=str(tmp_path))
  assert [source.name(i)[-6:] for i in range(len(source))] == ["a.jpeg", "/b.PNG", "c.webp"]
  assert source[0]["label"] == -1 and source.num_classes == 0 and source.class_names == ()


def test_folder_with_splits(class_folder, tmp_path):
  shutil.copytree(class_folder, tmp_path / "train")
  shutil.copytree(class_folder, tmp_path / "val")
  shutil.rmtree(tmp_path / "val" / "ant")
  deeper = tmp_path / "val" / "cat" / "2024" / "may"
  deeper.mkdir(parents=True)
  (deeper / "x.jpg").write_bytes(encoded(smooth(8, 8), "JPEG"))
  source = sources.make("folder", data_dir=str(tmp_path), split="val")
  assert source.num_classes == 3  # a class that has no image here keeps its number
  assert [source[i]["label"] for i in range(len(source))] == [1] * 3 + [2] * 4
  assert source.name(6).endswith("val/cat/2024/may/x.jpg")
  assert len(sources.make("folder", data_dir=str(tmp_path), split="train+val")) == 17
  with pytest.raises(ValueError, match="no split 'test'.*known: train, val"):
    sources.make("folder", data_dir=str(tmp_path), split="test")


def test_folder_errors(class_folder, tmp_path):
  with pytest.raises(
    ValueError, match="holds no image; known file name extensions: .png, .jpg, .jpeg, .webp"
  ):
    sources.make("folder", data_dir=str(tmp_path))
  with pytest.raises(ValueError, match="nowhere' is not a folder"):
    sources.make("folder", data_dir=str(tmp_path / "nowhere"))
  with pytest.raises(ValueError, match="no split 'test'; known: train. A part of a split is allowed too"):
    sources.make("folder", data_dir=str(class_folder), split="test")
  shutil.copytree(class_folder, tmp_path / "mixed")
  (tmp_path / "mixed" / "stray.png").write_bytes(encoded(smooth(8, 8)))
  with pytest.raises(ValueError, match="1 images outside of class folders, such as stray.png, and 10 inside"):
    sources.make("folder", data_dir=str(tmp_path / "mixed"))


def fill(root, *paths):
  for path in paths:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).touch()
  return root


SPLIT_FOLDERS = [
  (("Train", "Test"), ("train", "test")),
  (("TRAINING", "testing"), ("train", "test")),
  (("train", "eval"), ("train", "eval")),
  (("train", "Dev"), ("train", "dev")),
  (("seg_train", "seg_test", "seg_pred"), ("train", "test", "pred")),
  (("train2017", "val2017"), ("train", "val")),
  (("Training Set", "Test Set"), ("train", "test")),
  (("trainset", "testset"), ("train", "test")),
  (("train1", "test1"), ("train", "test")),
  (("train", "test_images"), ("train", "test")),
  (("imagenet-val", "imagenet-train"), ("val", "train")),
  (("train", "test", "unlabeled"), ("train", "test", "unlabeled")),
  (("train",), ("train",)),
]


@pytest.mark.parametrize("names, known", SPLIT_FOLDERS)
def test_folders_that_are_splits(names, known, tmp_path):
  for name in names:
    fill(tmp_path, f"{name}/cat/0.png", f"{name}/dog/0.png", f"{name}/dog/1.png")
  for split in known:
    source = sources.make("folder", data_dir=str(tmp_path), split=split)
    assert source.class_names == ("cat", "dog") and len(source) == 3


@pytest.mark.parametrize(
  "names",
  [
    ("aeroplane", "boat", "train"),  # classes of Pascal VOC
    ("train_interior", "train_railway", "train_station", "valley"),  # of Places
    ("bullet_train", "crash_test_dummy", "test_tube"),
    ("developer", "evaluations", "trains", "tests"),
  ],
)
def test_classes_whose_names_resemble_splits(names, tmp_path):
  source = sources.make("folder", data_dir=str(fill(tmp_path, *(f"{name}/0.png" for name in names))))
  assert source.class_names == tuple(sorted(names)) and len(source) == len(names)


@pytest.mark.parametrize(
  "paths, message",
  [
    (("train/cat/0.png", "val/cat/0.png", "notes/cat/0.png"), "train, val, which are splits, and .* notes"),
    (("train/cat/0.png", "boat/cat/0.png"), "the folders train, which are splits, and beside them boat"),
    (("Train/cat/0.png", "train/cat/0.png"), "the folders Train and train, which are both the split 'train'"),
    (("train/cat/0.png", "training/cat/0.png"), "both the split 'train'; rename or join them"),
    (("train-a/cat/0.png", "train-b/cat/0.png"), "train-a, train-b, which look like splits, but not of one"),
    (("bottle/train/0.png", "bottle/test/0.png", "nut/0.png"), "bottle would be a class, but .* of splits"),
    (("archive/train/0.png", "archive/test/0.png"), "archive would be a class.* the inner one as data_dir"),
    (("images/cat/0.png", "images/dog/0.png"), "holds only the folder images, which holds .* cat, dog"),
    (("cat/0.png", "dog/0.bmp", "dog/1.BMP", "dog/2.gif"), "dog holds no image .* 2 .bmp, 1 .gif; convert"),
    (("0.tif", "1.tif"), "holds no image, but 2 .tif; known file name extensions"),
    (("train/Cat/0.png", "test/cat/0.png"), "the class 'Cat' of one split is called 'cat' in another one"),
  ],
)
def test_refused_folders(paths, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    sources.make("folder", data_dir=str(fill(tmp_path, *paths)))


def test_hidden_files_are_not_read_and_what_is_left_out_is_counted(tmp_path):
  fill(tmp_path, "cat/0.png", "cat/.thumbnails/0.png", "cat/deep/.x/0.png", "cat/deep/1.PNG", "cat/._2.png")
  fill(
    tmp_path, "cat/@eaDir/0.png", "__MACOSX/cat/0.png", ".git/0.png", "dog/0.jpg", "dog/1.TIF", "dog/2.tif"
  )
  fill(tmp_path, "dog/README", "notes/a.txt")
  (tmp_path / "empty").mkdir()
  source = sources.make("folder", data_dir=str(tmp_path))
  assert source.reader.paths == ("cat/0.png", "cat/deep/1.PNG", "dog/0.jpg")
  assert source.class_names == ("cat", "dog")
  assert source.left_out == (
    "2 .tif, 1 folder without images (empty), 1 folder without images (notes), 6 hidden, 1 without suffix"
  )
  assert source.summary() == f"3 images of 2 classes; not read: {source.left_out}"
  beside = fill(tmp_path / "split", "train/cat/0.png", "stray.png", "train/cat/Thumbs.db")
  assert sources.make("folder", data_dir=str(beside)).left_out == (
    "1 .db, 1 image beside the folders of the splits"
  )


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  fill(tmp_path, "cat/0.png", "dog/0.png")
  scan = os.scandir

  def refusing(path):
    if str(path).endswith("dog"):
      raise PermissionError(13, "Permission denied", str(path))
    return scan(path)

  monkeypatch.setattr(os, "scandir", refusing)
  with pytest.raises(ValueError, match="dog cannot be read: Permission denied; change its permissions"):
    sources.make("folder", data_dir=str(tmp_path))


def test_the_case_of_class_names_may_tell_classes_apart(tmp_path):
  source = sources.make(
    "folder", data_dir=str(fill(tmp_path, "train/A/0.png", "train/a/0.png", "test/a/0.png"))
  )
  assert source.class_names == ("A", "a")


def test_links_are_followed_at_every_depth_and_never_upwards(tmp_path):
  store = fill(tmp_path / "store", "part/0.png", "part/1.png", "dog/0.png", "dog/deep/1.png", "one.png")
  root = fill(tmp_path / "data", "cat/9.png")
  links = {"cat/part": store / "part", "cat/again": store / "part", "cat/up": "..", "cat/outside": "../.."}
  links |= {"cat/one.png": store / "one.png", "cat/self": "self", "dog": store / "dog", "fox": store / "part"}
  for name, target in links.items():
    (root / name).symlink_to(target)
  (store / "dog" / "back").symlink_to(root)
  found = sources.make("folder", data_dir=str(root)).reader
  assert found.paths == (
    *("cat/9.png", "cat/again/0.png", "cat/again/1.png", "cat/one.png"),
    *("dog/0.png", "dog/deep/1.png", "fox/0.png", "fox/1.png"),
  )
  assert found.labels.tolist() == [0] * 4 + [1] * 2 + [2] * 2
  (tmp_path / "linked").symlink_to(root)
  assert sources.make("folder", data_dir=str(tmp_path / "linked")).reader.paths == found.paths
  splitted = tmp_path / "splits"
  splitted.mkdir()
  for name in ("train", "test"):
    (splitted / name).symlink_to(root)
  assert sources.make("folder", data_dir=str(splitted), split="test").class_names == ("cat", "dog", "fox")


def tiny_imagenet(root, lines=("1.JPEG\tn2\t0\t0\t9\t9", "0.JPEG\tn1\t0\t0\t9\t9")):
  fill(root, "train/n1/images/n1_0.JPEG", "train/n1/n1_boxes.txt", "train/n2/images/n2_0.JPEG")
  fill(root, "val/images/0.JPEG", "val/images/1.JPEG", "test/images/0.JPEG")
  (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
  return root


def test_tiny_imagenet_is_read_as_it_is_unpacked(tmp_path):
  make = lambda split: sources.make("folder", data_dir=str(tiny_imagenet(tmp_path)), split=split)
  train, val, test = map(make, ("train", "val", "test"))
  assert train.class_names == val.class_names == ("n1", "n2")
  assert val.reader.paths == ("val/images/0.JPEG", "val/images/1.JPEG")
  assert val.reader.labels.tolist() == [0, 1] and train.reader.labels.tolist() == [0, 1]
  assert test.num_classes == 0 and test.reader.labels.tolist() == [-1]  # never a class called images


@pytest.mark.parametrize(
  "lines, message",
  [
    (("0.JPEG\tn1",), "does not list 1.JPEG, which is in .*images; it must list exactly"),
    (("0.JPEG\tn1", "1.JPEG\tn1", "2.JPEG\tn2", "3.JPEG\tn2"), "lists 2.JPEG and 1 more, which is not in"),
    (("0.JPEG n1", "1.JPEG n2"), "line 1: no class after the file name '0.JPEG n1'"),
  ],
)
def test_errors_of_an_annotation_file(lines, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    sources.make("folder", data_dir=str(tiny_imagenet(tmp_path, lines)), split="val")


def test_unknown_names(tmp_path):
  with pytest.raises(ValueError, match="'sampel' needs data_dir, and it is empty.*did you mean 'sample'"):
    sources.make("sampel")
  with pytest.raises(ValueError, match="no TFDS data set 'cifar10' in .*; it holds no data set at all"):
    sources.make("cifar10", data_dir=str(tmp_path))
  for folder in ("cifar100/3.0.2", "imagenet_resized/32x32/0.1.0", "downloads/extracted"):
    (tmp_path / folder).mkdir(parents=True)
    if folder[-1].isdigit():
      (tmp_path / folder / "dataset_info.json").write_text("{}")
  with pytest.raises(ValueError, match="did you mean 'cifar100'.? known: cifar100, imagenet_resized/32x32"):
    sources.make("cifar10", data_dir=str(tmp_path))
  with pytest.raises(ValueError, match="mount the bucket as a folder"):
    sources.make("cifar10", data_dir="gs://bucket/tfds")


def test_the_highest_version_is_found(tmp_path):
  for version in ("2.0.0", "10.0.0", "9.1.0"):
    (tmp_path / "x" / version).mkdir(parents=True)
    (tmp_path / "x" / version / "dataset_info.json").write_text("{}")
  assert tfds_records.find("x", str(tmp_path)).name == "10.0.0"
  assert tfds_records.find("x:2.0.0", str(tmp_path)).name == "2.0.0"


def test_tfds(tfds_folder):
  source = sources.make("imagenet2012", data_dir=str(tfds_folder), split="validation[:50%]")
  assert len(source) == 80 and source.num_classes == 1000 and source.native_shape is None
  again = pickle.loads(pickle.dumps(source))
  indices = [7, 0, 79, 7]
  for one, other in zip(source.__getitems__(indices), [again[i] for i in indices]):
    assert one == other and 0 <= one["label"] < 1000
  assert min(decode.decode(source[3]["image"]).shape[:2]) <= 224
  assert source.name(3) == "imagenet2012/5.1.0 validation[:50%], record 3"
  labels = {source[i]["label"] for i in range(80)}
  assert len(labels) == 80  # one image a class
  whole = sources.make("imagenet2012", data_dir=str(tfds_folder), split="validation")
  assert whole[3] == source[3]


def test_tfds_errors(tfds_folder):
  with pytest.raises(ValueError, match="no split 'test'.*known: train, validation"):
    sources.make("imagenet2012", data_dir=str(tfds_folder), split="test")
  with pytest.raises(ValueError, match=r"split='train\[10:5\]' of imagenet2012/5.1.0"):
    sources.make("imagenet2012", data_dir=str(tfds_folder), split="train[10:5]")
  with pytest.raises(ValueError, match="incompatible with 640 examples"):
    sources.make("imagenet2012", data_dir=str(tfds_folder), split="train[:1000]")


def test_files_outside_the_folder_are_not_opened(tfds_folder, tmp_path):
  shutil.copytree(tfds_folder, tmp_path / "copy")
  info = next((tmp_path / "copy").rglob("dataset_info.json"))
  info.write_text(info.read_text().replace("{DATASET}-{SPLIT}", "../../../{DATASET}-{SPLIT}"))
  assert "../../../" in info.read_text()
  name = info.parent.parent.relative_to(tmp_path / "copy").as_posix()
  with pytest.raises(ValueError, match="names a file outside its folder: .*; the data set is not opened"):
    sources.make(name, data_dir=str(tmp_path / "copy"))


def test_synthetic():
  train = sources.make("synthetic", image_size=16)
  test = sources.make("synthetic", split="test[:50%]", image_size=16)
  assert len(train) == synthetic.SIZES["train"] and len(test) == synthetic.SIZES["test"] // 2
  assert train[5]["image"].shape == (16, 16, 3) == train.native_shape and train[5]["image"].dtype == np.uint8
  np.testing.assert_array_equal(train[5]["image"], pickle.loads(pickle.dumps(train))[5]["image"])
  assert not np.array_equal(train[0]["image"], test[0]["image"])
  assert not np.array_equal(train[0]["image"], train[10]["image"])
  counts = np.bincount([train[i]["label"] for i in range(200)])
  assert counts.tolist() == [20] * 10


def test_synthetic_classes_can_be_told_apart():
  """Classifies by the direction of the strongest wave, which no single pixel determines."""
  source = sources.make("synthetic", image_size=32)
  spectra = [np.abs(np.fft.fft2(source[i]["image"].astype(float).mean(-1)))[:8].ravel() for i in range(300)]
  spectra = np.stack([s * (np.arange(len(s)) > 0) for s in spectra])
  spectra /= np.linalg.norm(spectra, axis=1, keepdims=True)
  nearest = (spectra[200:] @ spectra[:200].T).argmax(1)
  assert np.mean((nearest - np.arange(200, 300)) % 10 == 0) > 0.8


def test_cached_images_are_the_decoded_ones(class_folder):
  source = sources.make("folder", data_dir=str(class_folder))
  held = sources.cached(source, threads=2)
  assert held.native_shape == (8, 8, 3) and held.num_classes == 3 and held.name(2) == source.name(2)
  for i in range(10):
    np.testing.assert_array_equal(held[i]["image"], decode.decode(source[i]["image"]))
    assert held[i]["label"] == source[i]["label"]
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(held))[3]["image"], held[3]["image"])


def test_cached_text_and_bytes_keep_their_length():
  """The path of a clip, or its encoded frames, may be longer than those of the first record."""
  texts = ["a", "a longer text", ""]
  frames = [[b"1", b"22"], [b"333\0\0", b"4"], [b"", b"5"]]
  rows = [{"clip": text, "frames": part, "label": 0} for text, part in zip(texts, frames)]

  class Rows:
    def __len__(self):
      return len(rows)

    def read(self, indices):
      return [rows[i] for i in indices]

    def name(self, index):
      return texts[index]

  held = sources.cached(Source(Rows(), 1, ("x",), None, fields=("clip", "frames", "label")))
  assert [held[i]["clip"] for i in range(3)] == texts
  assert [list(held[i]["frames"]) for i in range(3)] == frames


def test_cached_bad_images_stay_bad(class_folder, tmp_path):
  shutil.copytree(class_folder, tmp_path / "x")
  (tmp_path / "x" / "ant" / "1.png").write_bytes(b"broken")
  held = sources.cached(sources.make("folder", data_dir=str(tmp_path / "x")))
  with pytest.raises(DecodeError, match="not a PNG"):
    held[1]
  found = held.read_each([0, 1, 2])
  assert [isinstance(record, DecodeError) for record in found] == [False, True, False]


def test_cached_needs_one_size(tmp_path):
  (tmp_path / "a.png").write_bytes(encoded(smooth(8, 8)))
  (tmp_path / "b.png").write_bytes(encoded(smooth(8, 9)))
  source = sources.make("folder", data_dir=str(tmp_path))
  with pytest.raises(
    ValueError, match=r"b.png has image \(8, 9, 3\), others have \(8, 8, 3\).*set cache=False"
  ):
    sources.cached(source)
  held = sources.cached(source, transform=host.ImageAndLabel(transforms.resize_center_crop(8)))
  assert held[1]["image"].shape == (8, 8, 3)
  with pytest.raises(ValueError, match="2 images of .* take .* GiB of memory, the limit is 0.0 GiB"):
    sources.cached(sources.make("folder", data_dir=str(tmp_path), split="train[:1]+train[:1]"), max_bytes=300)


def test_a_file_that_vanished_is_reported_in_its_place(class_folder, tmp_path):
  shutil.copytree(class_folder, tmp_path / "x")
  source = sources.make("folder", data_dir=str(tmp_path / "x"))
  (tmp_path / "x" / "bee" / "0.png").unlink()
  found = source.read_each([3, 4, 5])
  assert [isinstance(record, DecodeError) for record in found] == [False, True, False]
  assert "No such file" in str(found[1])


def test_a_shuffled_source_shows_every_image_once_in_a_fixed_order():
  plain = sources.make("sample", split="test[:50]")
  mixed, again, other = (sources.shuffled(plain, seed) for seed in (0, 0, 1))
  labels = [record["label"] for record in mixed.__getitems__(range(50))]
  assert sorted(mixed.name(i) for i in range(50)) == sorted(plain.name(i) for i in range(50))
  assert (
    [mixed.name(i) for i in range(50)]
    == [again.name(i) for i in range(50)]
    != [other.name(i) for i in range(50)]
  )
  where = [plain.name(i) for i in range(50)].index(mixed.name(7))
  assert labels[7] == plain[where]["label"] and mixed[7]["image"] == plain[where]["image"]
