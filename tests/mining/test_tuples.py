"""Mined tuples: five frames of a clip at their distances, what is rejected, and what training reads."""

import numpy as np
import pytest
from PIL import Image

from ssl_jax.data import host, sources
from ssl_jax.data.decode import DecodeError, decode
from ssl_jax.data.elements import host_batch
from ssl_jax.data.transforms import resize_center_crop
from ssl_jax.mining import miners, runner
from ssl_jax.video.clips import open_clip

SPANS = {"span": 12, "gap": 3, "count": 6}
SIZE = (96, 64)  # (width, height) of the frames


def frame(position: int) -> np.ndarray:
  """uint8[H, W, 3]: a square at this place of a background of waves."""
  width, height = SIZE
  y, x = np.mgrid[:height, :width]
  picture = (100 + 40 * np.sin(x / 5) * np.cos(y / 7)).astype(np.uint8)
  picture[20:44, position : position + 24] = 240
  return np.repeat(picture[..., None], 3, -1)


def write_folder(path, positions) -> None:
  """Writes a clip, a folder of numbered images."""
  path.mkdir(parents=True)
  for number, position in enumerate(positions):
    Image.fromarray(frame(position)).save(path / f"{number:03}.png")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  root = tmp_path_factory.mktemp("clips")
  for name in ("a", "b", "c"):
    write_folder(root / name, 2 * np.arange(30))
  write_folder(root / "still", [10] * 30)
  write_folder(root / "brief", range(8))
  swinging = np.tile([10, 10, 10, 40, 40, 40], 5)  # what is three frames earlier often looks the same
  write_folder(root / "swing", swinging)
  return root


@pytest.fixture(scope="module")
def mined(clips, tmp_path_factory):
  mining = runner.Mining("tuples", SPANS, str(clips), split="train[:4]", test_split="train[4:]")
  return runner.run(mining, tmp_path_factory.mktemp("mined"), processes=1)


def mine(path, **options):
  with open_clip(path) as clip:
    return miners.make("tuples", **{**SPANS, **options}).mine(clip, np.random.default_rng(0))


def test_records_are_frames_of_the_clip_at_their_distances(clips):
  found = mine(clips / "a")
  assert len(found.records) == SPANS["count"]
  for record in found.records:
    a, b, c, d, e = numbers = record["numbers"]
    assert a < b < c < d < e and d - b <= 12 and b - a >= 3 and e - d >= 3
    np.testing.assert_allclose(record["times"], numbers / 25, rtol=1e-6)
    for number, stored in zip(numbers, record["frames"], strict=True):
      assert np.abs(decode(stored).astype(int) - frame(2 * number)).mean() < 3
  assert len({tuple(record["numbers"]) for record in found.records}) == SPANS["count"]


def test_what_is_rejected_is_counted(clips):
  assert mine(clips / "still").rejected == {"clip without motion": 1}
  assert mine(clips / "brief").rejected == {"clip with too few frames": 1}
  swing = mine(clips / "swing")
  assert swing.rejected["tuple whose middle frame looks like an outer one"] > 0
  for record in swing.records:
    shown = [int(decode(stored)[32, 15, 0] > 200) for stored in record["frames"]]
    assert shown[2] != shown[0] and shown[2] != shown[4]
  assert len(mine(clips / "swing", difference=0.0).records) == SPANS["count"]
  with pytest.raises(ValueError, match="tuples.count is 0; use a positive number"):
    mine(clips / "a", count=0)


def test_frames_are_reduced_to_the_longest_side(clips):
  assert decode(mine(clips / "a", longest=48).records[0]["frames"][0]).shape == (32, 48, 3)
  assert decode(mine(clips / "a").records[0]["frames"][0]).shape == (64, 96, 3)


def test_training_reads_what_was_mined(mined):
  data_dir = str(mined.parent.parent)
  train = sources.make("tuples", data_dir=data_dir)
  test = sources.make("tuples", data_dir=data_dir, split="test")
  assert set(train.fields) == {"frames", "label", "numbers", "times", "clip_name"}
  names = [{source[i]["clip_name"] for i in range(len(source))} for source in (train, test)]
  assert names[0] | names[1] == {"a", "b", "c", "swing"} and not names[0] & names[1]
  transform = host.make("stored_frames", host.Frame(32))
  host.check_source("stored_frames", transform, train)
  batch = host_batch(transform, [train[i] for i in range(len(train))])
  assert batch["clip"].shape == (len(train), 5, 32, 32, 3) and batch["clip"].dtype == np.uint8
  assert len(set(batch["clip_number"].tolist())) == len(names[0]) > 1 and (batch["label"] == -1).all()
  one = host.one_image(resize_center_crop(64), train)
  np.testing.assert_array_equal(one(None, train[0])["image"], decode(train[0]["frames"][2])[:, 16:80])


def test_frames_are_fitted_into_the_canvas(mined):
  record = sources.make("tuples", data_dir=str(mined.parent.parent))[0]
  squashed = host.make("stored_frames", host.Frame(32), fit="squash")(None, record)
  assert squashed["image_size"].tolist() == [32, 32]
  stored = Image.fromarray(decode(record["frames"][0])).resize((32, 32), Image.Resampling.BILINEAR)
  assert np.abs(squashed["clip"][0].astype(int) - np.asarray(stored)).max() <= 2
  wide = host.make("stored_frames", host.Frame(32), height=64, width=96)(None, record)
  np.testing.assert_array_equal(wide["clip"], [decode(stored) for stored in record["frames"]])


def test_records_of_another_kind_are_refused(mined):
  source = sources.make("tuples", data_dir=str(mined.parent.parent))
  record = source[0]
  with pytest.raises(ValueError, match="a record has 5 frames, but config.host.count is 4; use 5"):
    host.make("stored_frames", host.Frame(32), count=4)(None, record)
  mixed = {**record, "frames": [*record["frames"][:4], mine_small(record)]}
  with pytest.raises(DecodeError, match="its frames differ in size"):
    host.make("stored_frames", host.Frame(32))(None, mixed)
  with pytest.raises(ValueError, match="needs 'image' .* config.host.name='stored_frames'"):
    host.check_source("image", host.make("image", host.Frame(32)), source)
  with pytest.raises(ValueError, match="config.host.count is 0; use the number of frames"):
    host.make("stored_frames", host.Frame(32), count=0)


def mine_small(record) -> bytes:
  """A frame of another size."""
  from ssl_jax.mining.miner import encode_jpeg

  return encode_jpeg(decode(record["frames"][0])[:32])
