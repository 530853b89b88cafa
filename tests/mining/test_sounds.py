"""Tests of the miner of sounds: the right sound for each frame, bad clips, and what a record holds."""

import json

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from ssl_jax.data import sources
from ssl_jax.data.decode import decode
from ssl_jax.mining import miners, runner, sound_texture
from ssl_jax.mining.sound_texture import GROUPS
from ssl_jax.video.clips import open_clip
from tests.made_clips import number, write_clip, write_wav
from tests.mining.made_textures import TEXTURES, made_sound, write_texture_clip

RNG = np.random.default_rng(0)


def mine(path, **options):
  with open_clip(path) as clip:
    return miners.make("sounds", **{"seconds": 0.5, **options}).mine(clip, np.random.default_rng(0))


def sounding(path, sound: np.ndarray, count: int = 50, **options):
  """Writes a clip of 25 frames a second with a sound of 16 kHz beside it."""
  write_wav(write_clip(path, count, **options).with_suffix(".wav"), sound)
  return path


def test_each_frame_gets_the_sound_around_it(tmp_path):
  """The first second is low noise, the second one high noise."""
  kinds = [made_sound(kind, 1.0, 16_000, RNG) for kind in (0, 4)]
  sound = np.concatenate(kinds).astype(np.float32)
  found = mine(sounding(tmp_path / "a.mp4", sound), frames=6)
  assert len(found.records) == 6 and not found.rejected
  with open_clip(tmp_path / "a.mp4") as clip:
    for record in found.records:
      frame = number(decode(record["image"]))
      assert record["time"] == pytest.approx(frame / 25)
      window = clip.sound(record["time"] - 0.25, 0.5, sound_texture.RATE)
      alone = sound_texture.summarize_sound(window)
      assert np.corrcoef(record["sound"][GROUPS.mean], alone[GROUPS.mean])[0, 1] > 0.99
      loud = int(record["sound"][: sound_texture.CHANNELS].argmax())
      low, high = (sound_texture.cut_offs()[max(loud - 1, 0)], sound_texture.cut_offs()[min(loud + 1, 31)])
      if abs(record["time"] - 1) > 0.25:
        expected = TEXTURES[0 if record["time"] < 1 else 4]
        assert high > expected.low and low < expected.high


def test_frames_are_spread_over_the_part_with_whole_windows(tmp_path):
  sounding(tmp_path / "a.mp4", RNG.normal(0, 0.1, 16_000).astype(np.float32))  # half as long as the clip
  times = [record["time"] for record in mine(tmp_path / "a.mp4", frames=5).records]
  assert len(times) == 5 and 0.25 <= times[0] < 0.35 and 0.65 < times[-1] <= 0.75
  assert np.ptp(np.diff(times)) < 0.05
  few = mine(tmp_path / "a.mp4", frames=100).records
  assert len({record["time"] for record in few}) == len(few) == 12  # every frame once


def test_silent_windows_are_rejected_one_by_one(tmp_path):
  sound = np.concatenate([RNG.normal(0, 0.1, 16_000), np.zeros(16_000)]).astype(np.float32)
  found = mine(sounding(tmp_path / "a.mp4", sound), frames=8)
  assert found.rejected["window of silence"] > 0
  assert len(found.records) + found.rejected["window of silence"] == 8
  assert max(record["time"] for record in found.records) < 1.25


def test_frames_are_reduced_to_the_size_and_never_enlarged(tmp_path):
  sounding(tmp_path / "a.mp4", RNG.normal(0, 0.1, 32_000).astype(np.float32))
  shape = lambda size: decode(mine(tmp_path / "a.mp4", frames=1, size=size).records[0]["image"]).shape
  assert shape(32) == (32, 48, 3) and shape(200) == (64, 96, 3)


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
  """Clips that are bad or nearly so, each with what its mining must count."""
  root, sound = tmp_path_factory.mktemp("strange"), RNG.normal(0, 0.1, 32_000).astype(np.float32)
  sounding(root / "good.mp4", sound)
  sounding(root / "wide.mp4", sound, size=(10_000, 16), codec="mjpeg", pixels="yuvj420p")
  sounding(root / "renamed.mp4", sound).rename(root / "renamed.avi")
  sounding(root / "short_sound.mp4", sound[:12_000])
  sounding(root / "one_frame.mp4", sound, count=1)
  sounding(root / "no_times.mjpeg", sound, codec="mjpeg", pixels="yuvj420p", form="mjpeg")
  sounding(root / "cut.mp4", sound)
  whole = (root / "cut.mp4").read_bytes()
  (root / "cut.mp4").write_bytes(whole[: len(whole) // 2])
  (root / "zero.mkv").write_bytes(b"")
  (root / "noise.mp4").write_bytes(RNG.bytes(5000))
  (root / "text.webm").write_text("not a video")
  write_clip(root / "no_sound.mp4", 50)
  write_clip(root / "bad_sound.mp4", 50).with_suffix(".wav").write_bytes(b"RIFF")
  return root


def test_strange_clips_are_counted_and_the_run_ends(strange, tmp_path):
  mining = runner.Mining(
    "sounds", {"seconds": 0.5, "frames": 4, "clusters": 2, "bits": 2}, str(strange), "train", ""
  )
  folder = runner.run(mining, tmp_path, processes=1)
  found = json.loads((folder.parent / "statistics.json").read_text())
  assert set(found["bad_clips"]) == {"cut.mp4", "zero.mkv", "noise.mp4", "text.webm", "bad_sound.mp4"}
  assert found["rejected"] == {"clip without sound": 1, "clip with less sound than a window": 1}
  assert set(found["clips_without_records"]) == {"no_sound.mp4", "one_frame.mp4"}
  source = sources.make("sounds", data_dir=str(tmp_path))
  by_clip = {}
  for i in range(len(source)):
    by_clip.setdefault(source[i]["clip_name"], []).append(source[i])
  good = {"good.mp4", "wide.mp4", "renamed.avi", "short_sound.mp4", "no_times.mjpeg"}
  assert set(by_clip) == good and all(len(records) == 4 for records in by_clip.values())
  assert decode(by_clip["wide.mp4"][0]["image"]).shape == (16, 10_000, 3)


def test_textures_fall_into_pure_clusters_with_their_pictures(tmp_path):
  (tmp_path / "clips").mkdir()
  for kind in range(len(TEXTURES)):
    for copy in range(2):
      write_texture_clip(tmp_path / "clips" / f"{kind}_{copy}.mp4", kind, 10 * kind + copy, seconds=5.0)
  options = {"clusters": len(TEXTURES), "bits": 4, "frames": 3}
  runner.run(
    runner.Mining("sounds", options, str(tmp_path / "clips"), "train", ""), tmp_path / "out", processes=1
  )
  source = sources.make("sounds", data_dir=str(tmp_path / "out"))
  kinds = [int(source[i]["clip_name"][0]) for i in range(len(source))]
  labels = [source[i]["label"] for i in range(len(source))]
  assert len(source) == 36 and adjusted_rand_score(kinds, labels) > 0.9


def test_real_clips_with_sound_are_mined(shared_data, tmp_path):
  mining = runner.Mining(
    "sounds", {"frames": 2, "clusters": 2, "bits": 2, "size": 64}, str(shared_data / "video"), "train", ""
  )
  folder = runner.run(mining, tmp_path, processes=1)
  found = json.loads((folder.parent / "statistics.json").read_text())
  assert found["records"]["train"] == 6 and found["rejected"] == {"clip without sound": 6}
  assert not found["bad_clips"]


@pytest.mark.parametrize(
  "options, message",
  [
    ({"seconds": 60.0}, "sounds.seconds is 60.0; use 0.5 to 12, such as 3.75"),
    ({"bits": 0}, "sounds.bits is 0; use a positive number"),
    ({"statistics": "mean"}, "sounds.statistics is 'mean'; known: all, spectrum"),
  ],
)
def test_wrong_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    miners.make("sounds", **options)
