"""Mined motion: records are frames with masks, rejections are counted, and training reads what was mined."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="OpenCV is not installed: extra `video`")
pytest.importorskip("skimage", reason="scikit-image is not installed: extra `video`")

from ssl_jax.data import host, sources  # noqa: E402
from ssl_jax.data.decode import decode, decode_mask  # noqa: E402
from ssl_jax.data.elements import host_batch  # noqa: E402
from ssl_jax.mining import miners, runner  # noqa: E402
from ssl_jax.video import index  # noqa: E402
from ssl_jax.video.clips import open_clip  # noqa: E402
from tests.made_sprites import HEIGHT, WIDTH, frame, truth, write_folder  # noqa: E402

FEW = {"frames": 3}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  root = tmp_path_factory.mktemp("clips")
  for seed, name in enumerate(("a", "b")):
    write_folder(root / name, 13, 5, seed)
  write_folder(root / "pan", 9, -2)  # the sprite moves with the background
  write_folder(root / "brief", 5, 5)
  (root / "small").mkdir()
  (root / "cut").mkdir()
  for number in range(20):
    Image.fromarray(frame(0, 5)[:20]).save(root / "small" / f"{number}.png")
    shot = 255 - frame(number - 10, 5, 5) if number >= 10 else frame(number, 5)
    Image.fromarray(shot).save(root / "cut" / f"{number}.png")
  return root


def mine(path, **options):
  with open_clip(path) as clip:
    return miners.make("motion", **{**FEW, **options}).mine(clip, np.random.default_rng(0))


def test_records_are_frames_of_the_clip_with_what_moves(clips):
  found = mine(clips / "a")
  assert [record["number"] for record in found.records] == [4, 6, 8] and not found.rejected
  overlaps = []
  for record in found.records:
    assert record["time"] == pytest.approx(record["number"] / 25)
    image, mask = decode(record["image"]), decode_mask(record["mask"])
    assert image.shape == (HEIGHT, WIDTH, 3) and mask.shape == (HEIGHT, WIDTH)
    assert np.abs(image.astype(int) - frame(record["number"], 5)).mean() < 3
    wanted = truth(record["number"], 5)  # of the frame itself, not of a later one
    overlaps.append(((mask == 1) & wanted).sum() / ((mask == 1) | wanted).sum())
  assert min(overlaps) > 0.75 and np.mean(overlaps) > 0.8
  again = mine(clips / "a").records
  assert again == found.records


def test_what_is_rejected_is_counted(clips):
  assert mine(clips / "pan").rejected == {"frame where too little moves": 3}
  assert mine(clips / "brief").rejected == {"clip whose shots have too few frames": 1}
  assert mine(clips / "small").rejected == {"clip of too few pixels": 1}


def test_each_shot_has_its_frames_and_none_is_compared_across_a_cut(clips):
  numbers = [record["number"] for record in mine(clips / "cut", frames=20).records]
  assert numbers == [3, 4, 5, 6, 13, 14, 15, 16]
  assert len(mine(clips / "cut", frames=2).records) == 4


def test_frames_are_reduced_to_the_size(clips):
  record = mine(clips / "a", size=80, frames=1).records[0]
  assert decode(record["image"]).shape == (80, 120, 3) and decode_mask(record["mask"]).shape == (80, 120)


def test_frames_are_decoded_in_parts(clips, monkeypatch):
  whole = mine(clips / "a").records
  monkeypatch.setattr("ssl_jax.mining.miners.motion._PIXELS", 1)
  assert mine(clips / "a").records == whole


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(frames=0), "motion.frames is 0; use a positive number"),
    (dict(steps=(0, 1)), r"motion.steps is \(0, 1\); use numbers of frames other than 0"),
    (dict(background=0.7), "motion.background is 0.7 and motion.foreground 0.6; use 0 <= background < "),
    (dict(least=0.8), "motion.least is 0.8 and motion.most 0.7"),
    (dict(border=2.0), r"motion.border is 2.0; use a fraction in \[0, 1\]"),
    (dict(segments=-1), "motion.segments is -1"),
  ],
)
def test_refusals(options, message):
  with pytest.raises(ValueError, match=message):
    miners.make("motion", **options)


def test_a_missing_package_is_named(monkeypatch):
  monkeypatch.setattr(index.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ImportError, match=r"the miner 'motion' needs OpenCV.*pip install 'ssl_jax\[video\]'"):
    miners.make("motion")


def test_training_reads_what_was_mined(clips, tmp_path):
  mining = runner.Mining("motion", FEW, str(clips), split="train[:4]", test_split="train[4:]")
  folder = runner.run(mining, tmp_path, processes=1)
  assert np.asarray(Image.open(folder.parent / "sheet.png")).std() > 20
  source = sources.make("motion", data_dir=str(tmp_path))
  assert source.mask_classes == ("background", "moving") and {"image", "mask"} <= set(source.fields)
  transform = host.make("image_mask", host.Frame(96))
  host.check_source("image_mask", transform, source)
  batch = host_batch(transform, [source[i] for i in range(len(source))])
  assert batch["image"].shape == (len(source), 96, 96, 3) and batch["mask"].shape == (len(source), 96, 96)
  assert set(np.unique(batch["mask"])) == {0, 1, 255} and batch["image_size"][0].tolist() == [64, 96]
