"""Retrieval of a track's last patch: by hand, who the others are, and what is refused."""

import jax
import numpy as np
import pytest
from PIL import Image

from ssl_jax import tasks
from ssl_jax.data import transforms
from ssl_jax.data.elements import clip_number, host_batch
from ssl_jax.metrics import standard_error
from ssl_jax.tasks import same_track
from ssl_jax.tasks import task as task_types
from ssl_jax.tasks.backbone import encoder_only
from ssl_jax.tasks.pixel_baseline import pixels
from ssl_jax.tasks.same_track import Tracks, draw_others, rank_own

KEY = jax.random.key(0)
PROTOCOL = {"crop": 8, "resize": 8, "interpolation": "bilinear"}
CLIPS = ["a", "a", "a", "b", "b", "c", "c"]
NUMBERS = [(0, 9), (5, 14), (20, 29), (0, 9), (10, 19), (0, 9), (9, 18)]


def record_of(place: int, last: int) -> dict:
  """A track of two patterns of noise; equal numbers are equal patterns."""
  pattern = lambda number: np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)
  return {
    "frames": [pattern(place), pattern(last)],
    "numbers": np.array(NUMBERS[place], np.int32),
    "clip_name": CLIPS[place],
    "label": -1,
  }


def records_of(records: list) -> task_types.TestRecords:
  def batches(transform):
    for start in range(0, len(records), 4):
      rows = np.arange(start, start + 4)
      valid = rows < len(records)
      batch = host_batch(transform, [records[i] for i in np.where(valid, rows, start)])
      yield {**batch, "valid": valid, "index": np.where(valid, rows, 0).astype(np.int32)}

  read = lambda transform, indices: host_batch(transform, [records[i] for i in indices])
  return task_types.TestRecords(
    batches, read, records.__getitem__, lambda: np.zeros(0), ("frames", "numbers", "clip_name", "label")
  )


@pytest.fixture
def measure(make_data, noise, mesh_of):
  def measure(lasts, devices=1, backbone=None, **options):
    records = [record_of(place, last) for place, last in enumerate(lasts)]
    data = make_data(noise(8, 0), noise(8, 1), 10, records=records_of(records))
    data = data._replace(protocol=PROTOCOL)
    task = tasks.make(task="same_track", **options)
    return task.run(backbone or pixels(), data, mesh_of(devices), KEY)

  return measure


@pytest.mark.parametrize("devices", [1, 4])
def test_equal_patches_are_found_and_exchanged_ones_are_not(measure, devices):
  found = measure(range(7), devices, candidates=5)
  assert found.scalars == {
    "top1": 1, "reciprocal_rank": 1, "other_clips_top1": 1, "other_clips_reciprocal_rank": 1
  }  # fmt: skip
  # Tracks 0 and 2 of clip "a" are at different times and have exchanged their last patches.
  found = measure([2, 1, 0, 3, 4, 5, 6], devices, candidates=5)
  assert found.scalars["top1"] == pytest.approx(5 / 7)
  right = np.array([0, 1, 0, 1, 1, 1, 1], bool)
  numbers = np.array([clip_number({"clip_name": clip}) for clip in CLIPS])
  assert found.protocol["standard_error"]["top1"] == pytest.approx(standard_error(right, numbers))
  assert found.protocol["test_rows"] == 7 and found.protocol["test_clips"] == 3
  # of the same clip and at other times: 0 and 2, 1 and 2, 3 and 4
  assert found.protocol["candidates_of_the_same_clip"] == pytest.approx((1 + 1 + 2 + 1 + 1 + 0 + 0) / 7)


def test_a_network_that_maps_all_to_one_point_finds_nothing(measure, dense):
  collapsed = dense._replace(
    method=encoder_only(lambda params, model_state, images: jax.numpy.ones((len(images), 3)))
  )
  found = measure(range(7), backbone=collapsed, candidates=5)
  assert found.scalars["top1"] == 0 and found.scalars["reciprocal_rank"] == pytest.approx(1 / 5)


def tracks_of(count: int, clips: int) -> Tracks:
  """Tracks that follow each other in time, with features of noise."""
  x = np.random.default_rng(0).normal(size=(2, count, 6))
  begin = np.arange(count) // clips * 10
  return Tracks(x[0], x[1], np.arange(count) % clips, begin, begin + 9)


def test_the_others_are_of_the_same_clip_first_or_of_other_clips_only():
  tracks = tracks_of(60, 10)
  near, far = (draw_others(tracks, 30, 0, same_clip=same) for same in (True, False))
  for track in range(60):
    for drawn in (near[track], far[track]):
      assert len(set(drawn.tolist())) == 29 and track not in drawn
    same = tracks.clips[near[track]] == tracks.clips[track]
    assert same[:5].all() and not same[5:].any()
    assert not (tracks.clips[far[track]] == tracks.clips[track]).any()
  again = draw_others(tracks, 30, 0, same_clip=True)
  np.testing.assert_array_equal(near, again)
  assert (np.array(near) != draw_others(tracks, 30, 1, same_clip=True)).any()


def test_the_rank_counts_what_is_at_least_as_near():
  tracks = tracks_of(20, 4)
  others = np.array([3, 7, 11, 2])
  scores = tracks.last @ tracks.first[5]
  assert rank_own(tracks, 5, others) == (scores[others] >= scores[5]).sum()
  same = tracks._replace(last=np.repeat(tracks.last[:1], 20, 0))
  assert rank_own(same, 5, others) == 4


def test_queries_and_their_nearest_candidates_are_drawn(measure, tmp_path):
  found = measure(range(7), candidates=5)
  assert found.plot is not None
  found.plot(tmp_path / "same_track-pixels", "a title")
  picture = np.asarray(Image.open(tmp_path / "same_track-pixels.png").convert("RGB")).astype(int)
  assert picture.std() > 20
  green = np.abs(picture - [0x2A, 0x9D, 0x4E]).max(-1) < 3
  red = np.abs(picture - [0xD1, 0x38, 0x2F]).max(-1) < 3
  assert green.any() and red.sum() > 2 * green.sum()  # one of five candidates is right


def test_other_records_and_too_few_tracks_are_refused(measure, make_data, noise, mesh_of):
  with pytest.raises(ValueError, match="same_track.candidates is 1; use 2 or more, such as 50"):
    tasks.make(task="same_track", candidates=1)
  with pytest.raises(ValueError, match="with 5 tracks .* has only 4; use same_track.candidates=5, or more"):
    measure(range(7), candidates=6)
  data = make_data(noise(8, 0), noise(8, 1), 10)
  with pytest.raises(
    ValueError, match="needs 'frames', 'numbers' and 'clip_name' .* `ssl-jax prepare tracks`"
  ):
    tasks.make(task="same_track").run(pixels(), data, mesh_of(1), KEY)


def test_the_transform_reads_both_patches():
  pair = same_track.PairOfPatches(transforms.resize_center_crop(8, 8))
  made = pair(None, record_of(3, 5))
  assert made["image"].shape == (2, 8, 8, 3)
  np.testing.assert_array_equal(made["image"][1], record_of(5, 5)["frames"][0])
  assert made["label"].tolist() == [int(clip_number({"clip_name": "b"})), 0, 9]
