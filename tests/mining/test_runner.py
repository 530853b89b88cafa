"""Tests of mining: bad clips, resuming, processes, held-back clips, and the data set that is written."""

import json
import subprocess
import sys
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ssl_jax.data import sources
from ssl_jax.data.decode import decode
from ssl_jax.mining import clip_workers, miners, runner
from ssl_jax.mining.clip_results import ClipResult
from ssl_jax.run import prepare
from ssl_jax.run.commit import running_commit
from tests.conftest import REPOSITORY
from tests.made_clips import write_clip, write_wav

SMALL = {"frames": 3, "seconds": 0.5, "clusters": 2, "bits": 2}
GOOD = 4


def noise(number: int, seconds: float = 1.2) -> np.ndarray:
  rng = np.random.default_rng(number)
  return 0.2 * rng.normal(size=round(16000 * seconds)).clip(-3, 3).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  """Four good clips, and bad ones of each kind."""
  root = tmp_path_factory.mktemp("clips")
  for number in range(GOOD):
    path = write_clip(root / f"good{number}.mp4", 30)
    write_wav(path.with_suffix(".wav"), noise(number))
  write_clip(root / "silent.mp4", 30)
  write_wav(write_clip(root / "brief.mp4", 30).with_suffix(".wav"), noise(9, 0.3))
  write_wav(write_clip(root / "quiet.mp4", 30).with_suffix(".wav"), np.zeros(19200, np.float32))
  (root / "text.mp4").write_text("no video")
  whole = (root / "good0.mp4").read_bytes()
  (root / "cut.mp4").write_bytes(whole[: len(whole) // 3])
  (root / "empty.mkv").write_bytes(b"")
  return root


def mining(clips, **options) -> runner.Mining:
  return runner.Mining("sounds", SMALL, str(clips), **{"split": "train", "test_split": "", **options})


def contents(folder) -> dict[str, list]:
  """All records of a mined data set, as TFDS reads them."""
  builder: Any = tfds.builder_from_directory(folder)
  names = list(builder.info.splits)
  return {
    name: [
      {key: np.asarray(value).tolist() for key, value in record.items()}
      for record in builder.as_data_source(name)
    ]
    for name in names
  }


@pytest.fixture(scope="module")
def mined(clips, tmp_path_factory):
  output = tmp_path_factory.mktemp("alone")
  return runner.run(mining(clips), output, processes=1)


def test_bad_clips_are_counted_and_named_with_reasons(mined):
  found = json.loads((mined.parent / "statistics.json").read_text())
  assert found["commit"] == running_commit()
  assert set(found["bad_clips"]) == {"text.mp4", "cut.mp4", "empty.mkv"}
  assert found["rejected"] == {
    "clip with less sound than a window": 1,
    "clip without sound": 1,
    "window of silence": 3,
  }
  assert found["clips"] == {"train": 10, "test": 0}
  assert found["records"] == {"train": 3 * GOOD, "test": 0}
  assert found["clips_without_records"] == ["brief.mp4", "quiet.mp4", "silent.mp4"]
  assert sum(found["frames_in_clusters"]) == 3 * GOOD


def test_the_result_does_not_depend_on_the_number_of_processes(clips, mined, tmp_path):
  again = runner.run(mining(clips), tmp_path, processes=2)
  assert contents(again) == contents(mined)
  assert (again.parent / "sheet.png").read_bytes() == (mined.parent / "sheet.png").read_bytes()


def test_a_stopped_run_continues_with_the_missing_clips(clips, mined, tmp_path, monkeypatch):
  first, second, whole = [], [], clip_workers.mine_clip

  def until_stopped(work, clip):
    if len(first) == 4:
      raise KeyboardInterrupt
    first.append(clip)
    return whole(work, clip)

  monkeypatch.setattr(clip_workers, "mine_clip", until_stopped)
  with pytest.raises(KeyboardInterrupt):
    runner.run(mining(clips), tmp_path, processes=1)
  monkeypatch.setattr(clip_workers, "mine_clip", lambda work, clip: second.append(clip) or whole(work, clip))
  rest = runner.run(mining(clips), tmp_path, processes=1)
  assert len(second) == 6 and not set(first) & set(second)
  assert contents(rest) == contents(mined)
  assert not (tmp_path / "sounds" / "unfinished").exists()


def test_what_a_miner_draws_depends_on_the_seed_and_the_clip_alone():
  draw = lambda seed, clip: clip_workers.clip_rng(seed, clip).integers(2**62)
  assert draw(0, "a/b.mp4") == draw(0, "a/b.mp4")
  assert len({draw(0, "a.mp4"), draw(1, "a.mp4"), draw(0, "b.mp4")}) == 3


def test_a_clip_whose_disk_failed_is_tried_again(clips, tmp_path, monkeypatch):
  results = runner.open_results(mining(clips), tmp_path)
  work = clip_workers.Work("sounds", SMALL, 0, str(clips), results)
  with monkeypatch.context() as patch:
    patch.setattr(clip_workers, "open_clip", Mock(side_effect=OSError("the disk is gone")))
    assert clip_workers.mine_clip(work, "good1.mp4").error == "the disk is gone"
  assert results.load("good1.mp4").error and not results.is_stored("good1.mp4")
  clip_workers.mine_clip(work, "good1.mp4")
  assert not results.load("good1.mp4").error and results.is_stored("good1.mp4")
  clip_workers.mine_clip(work, "text.mp4")
  assert results.is_stored("text.mp4")  # a second attempt would fail alike


def test_records_come_back_as_they_were_stored(clips, tmp_path):
  results = runner.open_results(mining(clips), tmp_path)
  record = {"a": b"\x00\xff", "b": [b"1", b""], "c": "text", "d": 3, "e": 0.1, "f": np.eye(2, dtype=bool)}
  results.store("good1.mp4", ClipResult([record, {"a": b""}], {"why": 2}, 1.5))
  found = results.load("good1.mp4")
  first = dict(found.records[0])
  np.testing.assert_array_equal(first.pop("f"), record.pop("f"))
  assert (
    [first, found.records[1]] == [record, {"a": b""}]
    and found.rejected == {"why": 2}
    and found.seconds == 1.5
  )


def test_other_options_or_a_changed_clip_are_mined_again(clips, tmp_path):
  results = runner.open_results(mining(clips), tmp_path)
  work = clip_workers.Work("sounds", SMALL, 0, str(clips), results)
  clip_workers.mine_clip(work, "good1.mp4")
  assert results.is_stored("good1.mp4") and not results.is_stored("good2.mp4")
  other = runner.open_results(runner.Mining("sounds", {**SMALL, "frames": 2}, str(clips)), tmp_path)
  assert not other.is_stored("good1.mp4")
  next(results.folder.glob("*.npz")).write_bytes(b"half")
  assert not results.is_stored("good1.mp4")


def test_held_back_clips_are_other_clips(clips, tmp_path):
  halves = mining(clips, split="train[:50%]", test_split="train[50%:]")
  found = contents(runner.run(halves, tmp_path, processes=1))
  names = {split: {record["clip"] for record in records} for split, records in found.items()}
  assert names["train"] and names["test"] and not names["train"] & names["test"]
  with pytest.raises(ValueError, match="the clip .* is in --split=train and in --test_split=train"):
    runner.run(mining(clips, test_split="train[:1]"), tmp_path / "other")


def test_our_source_reads_what_was_mined_without_video_libraries(mined):
  program = f"""
import sys
sys.modules["av"] = sys.modules["cv2"] = None
from ssl_jax.data import sources
source = sources.make("sounds", data_dir={str(mined.parent.parent)!r})
assert len(source) == {3 * GOOD} and source.num_classes == 2, source
record = source[0]
assert record["sound"].shape == (502,) and record["bits"].dtype == bool and record["bits"].shape == (2,)
"""
  subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)
  source = sources.make("sounds", data_dir=str(mined.parent.parent))
  assert decode(source[0]["image"]).shape == (64, 96, 3)
  assert set(source.fields) == {"image", "label", "sound", "bits", "clip_name"}


def test_a_data_set_is_not_written_twice(clips, mined):
  with pytest.raises(ValueError, match="sounds/1.0.0 exists already; use another --output, or delete"):
    runner.run(mining(clips), mined.parent.parent)


def test_nothing_found_is_an_error_with_the_reasons(clips, tmp_path):
  only = tmp_path / "clips"
  only.mkdir()
  (only / "text.mp4").write_text("no video")
  with pytest.raises(ValueError, match="nothing was found .*; bad clips: 1\n  text.mp4: it cannot be opened"):
    runner.run(mining(only), tmp_path / "out", processes=1)


@pytest.mark.parametrize(
  "words, message",
  [
    (["sounds", "frame=3"], "sounds.frame is unknown; did you mean 'frames'"),
    (["sounds", "frames=many"], "sounds.frames is 'many' of type str; use a value of type int"),
    (["sounds", "frames"], "'frames' is not an option; write OPTION=VALUE"),
    (["sounds", "frames=0"], "sounds.frames is 0; use a positive number"),
  ],
)
def test_wrong_options_are_named(words, message, clips, tmp_path):
  with pytest.raises(ValueError, match=message):
    prepare.mine(words, str(tmp_path), data_dir=str(clips))


@pytest.mark.parametrize("name", miners.known())
def test_miners_are_found_and_do_without_jax(name):
  program = (
    f"import sys; from ssl_jax.mining import miners; miners.make({name!r}); assert 'jax' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)
