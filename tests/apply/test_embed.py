"""Features of folders of photos: right rows under right names, in three kinds of files, resumed."""

import csv
import json
import os
import signal

import numpy as np
import pytest
from PIL import Image

import ssl_jax
from ssl_jax.apply import encoding as module
from ssl_jax.apply.feature_files import Embedded, read_features, write_features
from ssl_jax.data import transforms
from ssl_jax.run.restore import restore
from ssl_jax.run.stop import Stopped
from tests.photos import saved_run, write_photos

pytestmark = pytest.mark.filterwarnings("ignore:The queue of")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  return saved_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """Nine photos in the split train, six in the split val."""
  root = tmp_path_factory.mktemp("photos")
  write_photos(root / "train", each=3)
  write_photos(root / "val", each=2, first=1000)
  return root


def embed(*args, **options):
  return ssl_jax.embed(*args, **{"batch_size": 8, **options})


def test_every_photo_of_all_splits_has_the_row_of_its_own_pixels(workdir, photos):
  found = embed(workdir, str(photos))
  assert len(found.names) == 15 and len(set(found.names.tolist())) == 15
  assert found.class_names == ("apple", "leaf", "sky")
  backbone = restore(workdir).backbone
  crop = transforms.resize_center_crop(16)
  for row in (0, 4, 14):
    name = str(found.names[row])
    assert name.split("/")[1] == found.class_names[found.labels[row]]
    pixels = crop(None, (photos / name).read_bytes())
    np.testing.assert_allclose(found.features[row], backbone.features(pixels[None])[0], atol=1e-4)


def test_a_folder_without_splits_is_embedded_whole(workdir, photos):
  """Though training holds a tenth of it back."""
  assert len(embed(workdir, str(photos / "train")).names) == 9
  assert len(embed(workdir, str(photos / "train"), split="test").names) == 1


def test_a_layer_a_grid_the_size_and_the_weights_are_chosen(workdir, photos):
  plain = embed(workdir, str(photos), split="val")
  layer = embed(workdir, str(photos), split="val", layer="stage2", grid=2)
  average = embed(workdir, str(photos), split="val", weights="ema", size=24)
  assert len(plain.features) == 6 and layer.features.shape == (6, 4 * 16)
  assert average.features.shape == plain.features.shape
  assert np.abs(average.features - plain.features).max() > 1e-3
  with pytest.raises(ValueError, match="unknown layer 'stage9'; this backbone has"):
    embed(workdir, str(photos), layer="stage9")


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_what_is_written_is_read_again(suffix, tmp_path):
  rng = np.random.default_rng(0)
  names = np.array(["a, b.jpg", "ü/c.png", 'd"e.webp'])
  found = Embedded(names, rng.normal(size=(3, 5)).astype(np.float32), np.array([1, -1, 0]), ("x", "y"))
  path = tmp_path / "deep" / f"features{suffix}"
  write_features(path, found, {"identity": 1})
  again = read_features(path)
  for before, after in zip(found, again):
    np.testing.assert_array_equal(before, after)
  assert json.loads(path.with_name(path.name + ".json").read_text())["identity"] == 1


def test_a_table_has_names_classes_and_numbers(workdir, photos, tmp_path):
  found = embed(workdir, str(photos), output=tmp_path / "f.csv")
  rows = list(csv.reader((tmp_path / "f.csv").read_text().splitlines()))
  assert rows[0][:3] == ["name", "class", "f0"] and len(rows) == 16
  assert rows[1][:2] == ["train/apple/00.jpg", "apple"]
  np.testing.assert_array_equal(np.array(rows[1][2:], np.float32), found.features[0])


def test_it_continues_where_it_stopped_and_a_complete_file_is_read(
  workdir, photos, tmp_path, monkeypatch, capsys
):
  path, whole = tmp_path / "f.npz", embed(workdir, str(photos))
  encode, seen = module.features.encoded, []

  def counted(*args, **options):
    for rows in encode(*args, **options):
      seen.append(len(rows.x))
      if len(seen) == 1:
        os.kill(os.getpid(), signal.SIGTERM)
      yield rows

  monkeypatch.setattr(module.features, "encoded", counted)
  with pytest.raises(Stopped, match="stopped by SIGTERM after 8 of 15 images; run the same command again"):
    embed(workdir, str(photos), output=path)
  assert not path.exists() and seen == [8]
  again = embed(workdir, str(photos), output=path)
  assert seen == [8, 7]
  np.testing.assert_array_equal(again.names, whole.names)
  np.testing.assert_allclose(again.features, whole.features, atol=1e-5)
  assert sorted(file.name for file in tmp_path.iterdir()) == ["f.npz", "f.npz.json"]
  capsys.readouterr()
  read = embed(workdir, str(photos), output=path)
  assert seen == [8, 7] and "f.npz is complete" in capsys.readouterr().out
  np.testing.assert_array_equal(read.features, again.features)
  other = embed(workdir, str(photos), split="val", output=path)  # other images: it is written anew
  assert len(other.names) == len(read_features(path).names) == 6


def test_undecodable_photos_have_no_row(workdir, tmp_path, capsys):
  folder = write_photos(tmp_path / "photos", each=3, classes=False)
  (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
  found = embed(workdir, str(folder))
  assert len(found.names) == 9 and "broken.jpg" not in found.names and found.class_names == ()
  assert (found.labels == -1).all()
  assert "1 of 10 images cannot be decoded; they have no row" in capsys.readouterr().out


def test_similar_photos_are_listed_and_drawn(workdir, photos, tmp_path, capsys):
  like = photos / "train" / "leaf" / "01.jpg"
  found = embed(workdir, str(photos), output=tmp_path / "f.npz", like=like)
  printed = [line.split("  ") for line in capsys.readouterr().out.splitlines() if ".jpg" in line]
  names = [line[1] for line in printed if len(line) == 2]
  assert len(names) == 14 and "train/leaf/01.jpg" not in names
  unit = found.features / np.linalg.norm(found.features, axis=1, keepdims=True)
  cosine = unit @ unit[found.names.tolist().index("train/leaf/01.jpg")]
  order = found.names[np.argsort(-cosine)].tolist()
  assert names[:3] == order[1:4]
  with Image.open(tmp_path / "f-like-01.png") as picture:
    assert picture.width > 500


def test_refusals(workdir, photos, tmp_path):
  for options, message in (
    (dict(output=tmp_path / "f.txt"), "ends in '.txt'; use one of .npz, .csv, .parquet"),
    (dict(like=photos / "train/apple/00.jpg"), "draws a picture beside --output, and it is empty"),
    (dict(batch_size=0), "--batch_size=0: use a positive number"),
    (dict(crop_ratio=1.5), "--crop_ratio=1.5: use a fraction"),
    (dict(size=-1), "--size=-1: use a number of pixels"),
    (dict(split="extra"), "has no split 'extra'"),
    (dict(output=tmp_path / "f.npz", like=tmp_path / "no.jpg"), "no.jpg is not a file; name an image"),
  ):
    with pytest.raises(ValueError, match=message):
      embed(workdir, str(photos), **options)
  with pytest.raises(ValueError, match="is not a folder; give the one that holds the images"):
    embed(workdir, str(tmp_path / "nothing"))
