"""Every miner ends on every kind of bad clip, and says what was wrong with it."""

import pathlib

import numpy as np
import pytest

from ssl_jax.mining import clip_workers, miners, runner
from tests.made_clips import write_clip, write_wav

RATE = 16000


def write_all(root: pathlib.Path) -> None:
  """Writes a clip of each kind into the folder."""
  whole = write_clip(root / "whole.mp4", 60).read_bytes()
  (root / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
  (root / "empty.mp4").write_bytes(b"")
  (root / "text.mp4").write_text("no video")
  tone = np.sin(np.arange(RATE // 2) / 9).astype(np.float32)
  write_clip(root / "no_frame.mkv", 0, sound=tone)
  write_wav(root / "sound_only.mp4", np.zeros(RATE, np.float32))
  (root / "wrong_suffix.avi").write_bytes(whole)
  write_clip(root / "one_frame.mp4", 1)
  write_clip(root / "wide.mkv", 3, codec="mjpeg", size=(10_000, 64), pixels="yuvj420p")
  write_clip(root / "no_timestamps.h264", 40, codec="libx264")
  write_clip(root / "short_sound.mp4", 60, sound=tone)


BAD = {"truncated.mp4", "empty.mp4", "text.mp4", "no_frame.mkv", "sound_only.mp4"}
OTHERS = {
  "no_timestamps.h264",
  "one_frame.mp4",
  "short_sound.mp4",
  "whole.mp4",
  "wide.mkv",
  "wrong_suffix.avi",
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  root = tmp_path_factory.mktemp("clips")
  write_all(root)
  return root


@pytest.mark.parametrize("name", miners.known())
def test_bad_clips_are_named_and_others_give_records_or_reasons(clips, tmp_path, name):
  results = runner.open_results(runner.Mining(name, {}, str(clips)), tmp_path)
  work = clip_workers.Work(name, {}, 0, str(clips), results)
  found = {path.name: clip_workers.mine_clip(work, path.name) for path in sorted(clips.iterdir())}
  assert {clip for clip, result in found.items() if result.error} == BAD
  for clip in found.keys() - BAD:
    assert found[clip].records or sum(found[clip].rejected.values()), clip
  assert not found["one_frame.mp4"].records


def test_the_folder_holds_what_the_sets_say(clips):
  names = {path.name for path in clips.iterdir()}
  assert names == BAD | OTHERS
