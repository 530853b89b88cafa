"""Sources: folders, TFDS data sets, synthetic images, cached images."""

import pickle
import shutil

import numpy as np
import pytest

from ssl_jax.data import decode, host, sources, synthetic, tfds_records, transforms
from ssl_jax.data.decode import DecodeError

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
  source = sources.make("folder", data_dir=str(class_folder), split="train[80%:]+train[:1]")
  assert [level(source, i) for i in range(3)] == [180, 200, 20]
  assert [source[i]["label"] for i in range(3)] == [2, 2, 0] and source.num_classes == 3


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
