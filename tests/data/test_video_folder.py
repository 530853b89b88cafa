"""Folders of clips: what counts as a clip, classes, splits and lists; bad clips are named and counted."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from ssl_jax import recipe
from ssl_jax.config.schema import TrainConfig, check
from ssl_jax.core import DataSpec
from ssl_jax.data import host, pipeline, sources
from ssl_jax.data.decode import DecodeError
from ssl_jax.data.host import Frame
from ssl_jax.data.memory import Stored
from ssl_jax.data.transforms import resize_center_crop
from ssl_jax.run.assembly import assemble, open_data
from ssl_jax.video.clips import open_clip
from tests.conftest import REPOSITORY
from tests.made_clips import number, pattern, write_clip, write_wav

av = pytest.importorskip("av", reason="av is not installed: extra `video`")


def open_folder(root, split="train"):
  return sources.make("video_folder", data_dir=str(root), split=split)


def names(source):
  root = len(source.reader.root) + 1
  return [source.name(i)[root:] for i in range(len(source))]


def write_frames(folder, count=4, suffix=".png"):
  folder.mkdir(parents=True)
  for i in range(count):
    Image.fromarray(pattern(i)).save(folder / f"{i:05}{suffix}")


def touch(*paths):
  for path in paths:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_clips_of_class_folders(tmp_path):
  touch(
    tmp_path / "jump/a.MP4", tmp_path / "jump/deep/b.mkv", tmp_path / "run/c.webm", tmp_path / "run/c.wav"
  )
  touch(tmp_path / "run/notes.csv", tmp_path / "run/other.wav", tmp_path / "run/.d.mp4")
  write_frames(tmp_path / "run" / "frames_7")
  write_frames(tmp_path / "walk" / "x" / "y")
  source = open_folder(tmp_path)
  assert names(source) == ["jump/a.MP4", "jump/deep/b.mkv", "run/c.webm", "run/frames_7", "walk/x/y"]
  assert source.class_names == ("jump", "run", "walk")
  assert [source[i]["label"] for i in range(5)] == [0, 0, 1, 1, 2]
  assert source.summary() == "5 clips of 3 classes; not read: 1 .csv, 1 .wav, 1 hidden"
  assert source.fields == ("clip", "label") and source[0]["clip"] == source.name(0)


def test_clips_without_classes(tmp_path):
  write_frames(tmp_path / "b", suffix=".jpg")
  touch(tmp_path / "a.mp4", tmp_path / "c.avi")
  (tmp_path / "empty").mkdir()
  source = open_folder(tmp_path)
  assert names(source) == ["a.mp4", "b", "c.avi"] and source.num_classes == 0
  assert source.left_out == "1 folder without clips (empty)" and source[1]["label"] == -1
  assert sorted(names(open_folder(tmp_path, "train[:1]")) + names(open_folder(tmp_path, "train[1:]"))) == [
    "a.mp4", "b", "c.avi"
  ]  # fmt: skip
  touch(tmp_path / "run/d.mp4")
  with pytest.raises(
    ValueError, match=r"holds 3 clips outside of class folders, such as a.mp4, and 1 inside"
  ):
    open_folder(tmp_path)


def test_splits_and_parts(tmp_path):
  for split, count in (("train", 6), ("val", 2)):
    for name in ("run", "walk"):
      touch(*(tmp_path / split / name / f"{i}.mp4" for i in range(count)))
  assert len(open_folder(tmp_path)) == 12 and len(open_folder(tmp_path, "val")) == 4
  half = open_folder(tmp_path, "train[:50%]")
  assert np.bincount(half.reader.labels).tolist() == [3, 3]
  with pytest.raises(ValueError, match=r"has no split 'test'.*train.*val"):
    open_folder(tmp_path, "test")


def test_only_folder_called_videos_is_no_class(tmp_path):
  touch(tmp_path / "videos/a.mp4")
  assert open_folder(tmp_path).num_classes == 0


def test_folders_of_pictures_are_clips_only_if_all_are_numbered(tmp_path):
  write_frames(tmp_path / "a" / "frames")
  write_frames(tmp_path / "b" / "album")
  Image.fromarray(pattern(0)).save(tmp_path / "b/album/holiday.png")
  assert names(open_folder(tmp_path)) == ["a/frames"]
  with pytest.raises(ValueError, match=r"holds no clip, but .*known file name extensions: .mp4, .m4v"):
    open_folder(tmp_path / "b")
  with pytest.raises(ValueError, match=r"holds no clip in a known format, but 1 .gif; convert them to MP4"):
    touch(tmp_path / "c/x.gif")
    open_folder(tmp_path)


def test_images_are_found_as_before(tmp_path):
  """A folder of numbered images stays a class for the data set of images."""
  write_frames(tmp_path / "a")
  write_frames(tmp_path / "b")
  source = sources.make("folder", data_dir=str(tmp_path))
  assert len(source) == 8 and source.class_names == ("a", "b") and source.summary().startswith("8 images")


def test_lists(tmp_path):
  touch(tmp_path / "Run/a b.avi", tmp_path / "Run/c.avi", tmp_path / "Walk/d.avi")
  (tmp_path / "train.txt").write_text("Run/a b.avi run\nRun/c.avi\trun\n\nWalk/d.avi walk\n")
  (tmp_path / "val.txt").write_text("Run/gone.avi swim\n")
  (tmp_path / "README.txt").write_text("not a list")
  source = open_folder(tmp_path)
  assert names(source) == ["Run/a b.avi", "Run/c.avi", "Walk/d.avi"]
  assert source.class_names == ("run", "swim", "walk") and source.reader.labels.tolist() == [0, 0, 2]
  assert open_folder(tmp_path, "val")[0]["label"] == 1
  with pytest.raises(DecodeError, match="cannot be read: No such file"):
    open_clip(open_folder(tmp_path, "val")[0]["clip"])
  with pytest.raises(ValueError, match=r"the lists in the folder .* has no split 'test'"):
    open_folder(tmp_path, "train+test")


def test_lists_by_number_or_by_folder(tmp_path):
  touch(*(tmp_path / f"Run/{i}.avi" for i in range(3)), tmp_path / "Walk/3.avi")
  (tmp_path / "trainlist01.txt").write_text("Run/0.avi 2\nRun/1.avi 10\nWalk/3.avi 1\n")
  source = open_folder(tmp_path, "trainlist01")
  assert source.class_names == ("1", "2", "10") and source.reader.labels.tolist() == [1, 2, 0]
  (tmp_path / "trainlist01.txt").write_text("Run/0.avi\nWalk/3.avi\n")
  source = open_folder(tmp_path, "trainlist01")
  assert source.class_names == ("Run", "Walk") and source.reader.labels.tolist() == [0, 1]
  (tmp_path / "trainlist01.txt").write_text("Run/0.avi 1\nWalk/3.avi\n")
  with pytest.raises(
    ValueError, match="trainlist01.txt gives no class for Walk/3.avi, but it does for others"
  ):
    open_folder(tmp_path, "trainlist01")
  (tmp_path / "trainlist01.txt").write_text("\n")
  with pytest.raises(ValueError, match="trainlist01.txt lists no clip"):
    open_folder(tmp_path, "trainlist01")


def write_bad_clips(root) -> dict[str, str]:
  """Writes clips that cannot be used; returns {name: part of the reason}."""
  whole = write_clip(root / "whole.mkv", 100).read_bytes()
  (root / "truncated.mkv").write_bytes(whole[: len(whole) // 2])
  faststart = write_clip(root / "whole.mp4", 100).read_bytes()
  (root / "truncated.mp4").write_bytes(faststart[: len(faststart) // 2])  # without its table at the end
  front = root / "front.mp4"
  with (
    av.open(str(root / "whole.mp4")) as old,
    av.open(str(front), "w", options={"movflags": "faststart"}) as new,
  ):
    stream = new.add_stream_from_template(old.streams.video[0])
    for packet in old.demux(video=0):
      if packet.dts is not None:
        packet.stream = stream
        new.mux(packet)
  data = front.read_bytes()
  (root / "truncated_front.mp4").write_bytes(data[: 2 * len(data) // 3])
  (root / "truncated_late.mp4").write_bytes(data[:-100])
  front.unlink()
  (root / "whole.mkv").unlink()
  (root / "whole.mp4").unlink()
  (root / "text.mp4").write_text("this is no video\n" * 30)
  (root / "empty.mp4").write_bytes(b"")
  (root / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
  (root / "header.mkv").write_bytes(whole[: whole.index(b"\x1f\x43\xb6\x75")])  # ends before its clusters
  write_clip(root / "no_frames.mkv", 0, sound=np.zeros(8000))
  write_wav(root / "only_sound.mp4", np.zeros(8000))
  write_clip(root / "one_frame.mp4", 1)
  write_clip(root / "wide.mkv", 1, codec="mjpeg", pixels="yuvj420p", size=(10000, 3600))
  write_clip(root / "short.avi", 7)
  return {
    "truncated.mkv": "the file is truncated: its header states 4.0 s",
    "truncated.mp4": "Invalid data found",
    "truncated_front.mp4": "the file is truncated: it ends within one of its",
    "truncated_late.mp4": "the file is truncated: it ends within one of its",
    "text.mp4": "it cannot be opened as video or sound: Invalid data found",
    "empty.mp4": "the file is empty",
    "playlist.mp4": "",
    "header.mkv": "it cannot be opened as video or sound: End of file",
    "no_frames.mkv": "the file holds no frame",
    "only_sound.mp4": "the file has no video stream",
    "one_frame.mp4": "the clip has 1 frames in 0.04 s, too few for 8 frames at a step of 1 frames",
    "wide.mkv": "the frames have 10000x3600 pixels, more than the limit",
    "short.avi": "the clip has 7 frames in 0.28 s, too few for 8 frames",
  }


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_clips_are_named_counted_and_replaced(tmp_path, workers):
  bad = write_bad_clips(tmp_path)
  write_clip(tmp_path / "good.mp4", 30)
  write_clip(tmp_path / "a.mkv", 30).rename(tmp_path / "wrong_suffix.avi")  # no obstacle: the content counts
  write_clip(tmp_path / "raw.h264", 30, codec="libx264").rename(tmp_path / "no_timestamps.mp4")
  write_clip(tmp_path / "wide_but_flat.mkv", 9, codec="mjpeg", pixels="yuvj420p", size=(10000, 32))
  source = open_folder(tmp_path)
  transform = host.make("frames", Frame(32))
  options = dict(batch_size=4, transform=transform, max_bad_fraction=1.0, workers=workers)
  with pipeline.train_batches(source, seed=0, start=0, stop=5, **options) as batches:
    found = list(batches)
    reported = {name.rpartition("/")[2]: reason for name, reason in batches.bad.items()}
  assert len(found) == 5 and all(batch["clip"].shape == (4, 8, 32, 32, 3) for batch in found)
  assert reported.keys() == bad.keys(), reported
  for name, reason in bad.items():
    assert reason in reported[name], (name, reported[name])
  with pipeline.eval_batches(source, **options) as batches:
    valid = np.concatenate([batch["valid"] for batch in batches])
  assert valid.sum() == 4 and len(batches.bad) == len(bad)
  with pytest.raises(ValueError, match=r"of 17 clips cannot be decoded, 6 are allowed"):
    list(pipeline.eval_batches(source, **{**options, "max_bad_fraction": 0.4, "workers": 0}))


def test_clips_without_enough_sound_are_counted(tmp_path):
  sound = (0.1 * np.random.default_rng(0).standard_normal(16000 * 3)).clip(-1, 1).astype(np.float32)
  write_clip(tmp_path / "heard.mkv", 75, sound=sound)
  write_clip(tmp_path / "part.mkv", 75, sound=sound[:16000])  # shorter than the pictures, but long enough
  write_clip(tmp_path / "short.mkv", 75, sound=sound[:6400])
  write_clip(tmp_path / "silent.mkv", 75)
  source = open_folder(tmp_path)
  transform = host.make("frame", Frame(32), sound_seconds=0.5, rate=8000)
  assert transform.elements["sound"].shape == (4000,)
  options = dict(batch_size=4, transform=transform, max_bad_fraction=0.5)
  with pipeline.train_batches(source, seed=0, start=0, stop=3, **options) as batches:
    for batch in batches:
      assert batch["sound"].std(axis=1).min() > 0.01
  reasons = {name.rpartition("/")[2]: reason for name, reason in batches.bad.items()}
  assert reasons.keys() == {"short.mkv", "silent.mkv"}
  assert "it has no sound" in reasons["silent.mkv"]
  assert "covers no window of 0.5 s around the frames" in reasons["short.mkv"]


def test_frames_of_a_clip(tmp_path):
  path = write_clip(tmp_path / "a.mp4", 40)
  record = {"clip": str(path), "label": 3}
  taken = lambda **options: host.make("frames", Frame(64), fit="pad", width=96, **options)
  made = taken(count=5, step=3, start="first")(None, record)
  assert [number(frame) for frame in made["clip"]] == [0, 3, 6, 9, 12]
  np.testing.assert_allclose(made["frame_times"], np.arange(0, 13, 3) / 25, atol=1e-5)
  assert made["label"] == 3 and made["image_size"].tolist() == [64, 96]
  centre = taken(count=5, step=3, start="centre")(None, record)
  assert [number(frame) for frame in centre["clip"]] == [14, 17, 20, 23, 26]
  seconds = taken(count=4, step=0.1, unit="seconds", start="first")(None, record)
  assert [number(frame) for frame in seconds["clip"]] == [0, 2, 5, 7]
  random = taken(count=5, step=3)
  firsts = {number(random(np.random.default_rng(i), record)["clip"][0]) for i in range(60)}
  assert min(firsts) >= 0 and max(firsts) <= 27 and len(firsts) > 15
  again = [random(np.random.default_rng(5), record)["clip"] for _ in range(2)]
  assert (again[0] == again[1]).all()


def test_one_frame_is_an_image(tmp_path):
  record = {"clip": str(write_clip(tmp_path / "a.mp4", 41, size=(96, 96))), "label": -1}
  centre = host.make("frame", Frame(96), start="centre")
  assert not centre.random and number(centre(None, record)["image"]) == 20
  random = host.make("frame", Frame(96))
  assert len({number(random(np.random.default_rng(i), record)["image"]) for i in range(40)}) > 15
  views = host.make("frame", Frame(24, views=2), start="centre")
  assert views.random and views(np.random.default_rng(0), record)["image"].shape == (2, 24, 24, 3)


def config_of(root, **data):
  return check(
    TrainConfig,
    recipe(
      method=dict(name="simclr"),
      encoder=dict(name="resnet10", width=8),
      augment=dict(name="moco_v2", views=2, size=32),
      optimizer=dict(learning_rate=0.1),
      host=dict(name="frame", start=data.pop("start", "random")),
      data=dict(name="video_folder", data_dir=str(root), size=32, **data),
      batch_size=4,
      epochs=1.0,
    ),
  )


def test_methods_for_images_take_frames(tmp_path):
  for name in "ab":
    (tmp_path / name).mkdir()
    for i in range(4):
      write_clip(tmp_path / name / f"{i}.mp4", 9)
  config = config_of(tmp_path)
  source, transform = open_data(config)
  parts = assemble(config, DataSpec(len(source), source.num_classes, config.batch_size))
  assert parts.batch["image"].shape == (4, 32, 32, 3) and source.num_classes == 2
  with pytest.raises(ValueError, match="config.data.cache is True, but whole clips are not kept in memory"):
    open_data(config_of(tmp_path, cache=True))
  kept, stored = open_data(config_of(tmp_path, cache=True, start="centre"))
  assert isinstance(stored, Stored) and kept[5]["image"].shape == (32, 32, 3) and kept[5]["label"] == 1
  middle = host.one_image(resize_center_crop(32), source)
  assert (middle(None, source[5])["image"] == kept[5]["image"]).all()


def test_wrong_options():
  make = lambda **options: host.make("frames", Frame(32), **options)
  for options, message in (
    (dict(count=0), "config.host.count is 0"),
    (dict(step=0.5), "config.host.step is 0.5 frames; use a positive number, a whole one for frames"),
    (dict(sound_seconds=-1.0), "config.host.sound_seconds is -1.0"),
    (dict(sound_seconds=1.0, rate=0), "config.host.rate is 0"),
    (dict(start="middle"), "middle"),
    (dict(fit="stretch"), "stretch"),
  ):
    with pytest.raises(ValueError, match=message):
      make(**options)
  with pytest.raises(ValueError, match="delivers whole images"):
    host.make("frames", Frame(32, views=2))


def test_clips_and_images_are_not_confused(tmp_path):
  write_clip(tmp_path / "a.mp4", 9)
  source = open_folder(tmp_path)
  with pytest.raises(ValueError, match=r"needs 'image' in every record.*config.host.name='frame'"):
    host.check_source("image", host.make("image", Frame(32)), source)
  images = sources.make("synthetic", image_size=32)
  with pytest.raises(ValueError, match=r"needs 'clip' in every record.*config.host.name='image'"):
    host.check_source("frames", host.make("frames", Frame(32)), images)


def test_memory_does_not_grow_with_the_clip(tmp_path):
  """A clip of 2,000 frames, of 74 MB as RGB: a few frames at a time are held, in order or at random."""
  path = write_clip(tmp_path / "long.mp4", 2000, size=(128, 96), options={"g": "50"})
  program = """
import resource, sys
import numpy as np
from ssl_jax.video.clips import open_clip
with open_clip(sys.argv[1]) as clip:
  clip.frames([0])
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert sum(1 for _ in clip) == 2000
  for i in np.random.default_rng(0).integers(0, 2000, 40):
    clip.frames([int(i)])
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert grown < 8_000, grown
"""
  subprocess.run([sys.executable, "-c", program, str(path)], check=True, cwd=REPOSITORY)
  with open_clip(path) as clip:
    tracemalloc.start()
    sizes = {frame.nbytes for frame in clip}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
  assert peak < 20 * max(sizes)


def test_without_pyav(tmp_path):
  touch(tmp_path / "a.mp4")
  program = f"""
import sys
sys.modules["av"] = None
from ssl_jax.data import sources
try:
  sources.make("video_folder", data_dir={str(tmp_path)!r})
except ImportError as error:
  print(error)
"""
  done = subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY, capture_output=True)
  assert b"pip install 'ssl_jax[video]'" in done.stdout


def test_real_clips_in_batches(shared_data):
  source = open_folder(shared_data / "clips")
  assert len(source) == 52 and ".wav" not in source.left_out
  transform = host.make("frames", Frame(48), count=4, step=0.25, unit="seconds")
  with pipeline.train_batches(source, batch_size=8, seed=0, start=0, stop=2, transform=transform) as batches:
    for batch in batches:
      assert batch["clip"].std() > 20 and not batches.bad
