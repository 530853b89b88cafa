"""Panoptic quality: values by hand, what is void or a crowd, and agreement with another implementation."""

import numpy as np
import pytest

from ssl_jax.data import instance_masks
from ssl_jax.data.mask_values import IGNORE
from ssl_jax.tasks import panoptic_scores
from ssl_jax.tasks.segmented_frame import Frame, predicted_parts, true_parts
from ssl_jax.tasks.video_streams import Video

pytest.importorskip("skimage", reason="scikit-image is not installed: extra `video`")

NAMES = ("road", "sky", "car", "dog")
THINGS = np.isin(np.arange(256), [2, 3])


def counts(truth, segments, predicted):
  """[4, C] of one frame."""
  truth, predicted = np.array(truth, np.uint8), np.array(predicted, np.uint8)
  parts = true_parts(truth, np.array(segments, np.int32), THINGS), predicted_parts(predicted, THINGS)
  return panoptic_scores.match(*parts)[:, : len(NAMES)]


def measured(truth, segments, predicted):
  """The scalars and details of streams whose frames have one prediction each."""
  measure = panoptic_scores.make_measure(NAMES, ("car", "dog"))
  frames = [
    Frame(np.array(t, np.uint8), np.stack([np.array(p, np.uint8)] * 3), np.array(s, np.int32))
    for t, s, p in zip(truth, segments, predicted)
  ]
  rows = {"panoptic": np.stack([np.asarray(measure.count(frame)["panoptic"]) for frame in frames])}
  rows |= {name: np.arange(len(frames)) * (name != "video") for name in ("video", "moment", "index")}
  return measure.report(rows, [Video("a", 0, np.arange(len(frames)))])


def test_a_frame_by_hand():
  """Road: 6 of 8 pixels; car 1: 3 of 4; car 2 is missed, since 1 of 3 is no match; a wrong dog."""
  truth = [[0, 0, 0, 0, 2, 2, 2, 2, 0, 0, 0, 0, 2, 2]]
  segments = [[1, 1, 1, 1, 8, 8, 8, 8, 1, 1, 1, 1, 9, 9]]
  predicted = [[0, 0, 0, 3, 0, 2, 2, 2, 0, 0, 0, 2, 2, 3]]
  total, right, wrong, missed = counts(truth, segments, predicted)
  assert right.tolist() == [1, 0, 1, 0] and missed.tolist() == [0, 0, 1, 0]
  assert wrong.tolist() == [0, 0, 1, 2]  # the car on road, two dogs
  assert total.tolist() == pytest.approx([6 / 9, 0, 3 / 4, 0])
  scalars, details = measured([truth], [segments], [predicted])
  pq = {"road": 6 / 9, "car": 0.75 / (1 + 0.5 + 0.5), "dog": 0.0}
  assert details["by_class"] == pytest.approx(pq, abs=1e-6)  # nobody speaks of the sky
  assert scalars["pq"] == pytest.approx(np.mean(list(pq.values())))
  assert scalars["pq_stuff"] == pytest.approx(6 / 9) and scalars["pq_things"] == pytest.approx(0.375 / 2)
  assert scalars["sq"] == pytest.approx((6 / 9 + 0.75 + 0) / 3)
  assert scalars["rq"] == pytest.approx((1 + 0.5 + 0) / 3) and scalars["rq_frozen"] == scalars["rq"]


def test_segments_are_added_over_frames_before_the_quotient():
  truth = [[[2, 2, 0, 0]], [[2, 2, 0, 0]]]
  segments = [[[5, 5, 1, 1]], [[5, 5, 1, 1]]]
  scalars, _ = measured(truth, segments, [[[2, 2, 0, 0]], [[0, 0, 0, 0]]])
  # Cars: one match and one that is missed. Road: all, then 2 of 4, which is no match.
  assert scalars["pq"] == pytest.approx(np.mean([1 / 1.5, 1 / (1 + 0.5 + 0.5)]))


def test_neighbours_of_one_class_are_one_object_and_corners_connect():
  predicted = [[2, 0, 2, 2], [0, 2, 3, 2]]
  parts = predicted_parts(np.array(predicted, np.uint8), THINGS)
  assert sorted(zip(parts.classes.tolist(), parts.areas.tolist())) == [(0, 2), (2, 5), (3, 1)]


def test_void_pixels_count_on_neither_side():
  truth = [[2, 2, IGNORE, IGNORE, IGNORE, 0]]
  segments = [[5, 5, 1, 1, 1, 1]]
  total, right, wrong, missed = counts(truth, segments, [[2, 2, 2, 3, 3, 0]])
  assert total.tolist() == [1, 0, 1, 0] and right.tolist() == [1, 0, 1, 0]
  assert not wrong.any() and not missed.any()  # the dog is on void
  assert not counts([[IGNORE] * 6], [[0] * 6], [[2, 2, 2, 3, 3, 0]]).any()


def test_crowds_are_neither_found_nor_missed():
  truth, segments = [[2, 2, 2, 2, 0, 0]], [[-5, -5, -5, -5, 1, 1]]
  assert not counts(truth, segments, [[2, 2, 2, 2, 0, 0]])[1:, 2].any()
  assert not counts(truth, segments, [[0, 0, 0, 0, 0, 0]])[1:, 2].any()
  assert counts(truth, segments, [[3, 3, 3, 3, 0, 0]])[2].tolist() == [0, 0, 0, 1]  # of another class


def test_it_agrees_with_hotcoco():
  hotcoco = pytest.importorskip("hotcoco", reason="hotcoco is not installed: extra `test`")
  draw = np.random.default_rng(0)
  frames = [_random_frame(draw) for _ in range(12)]
  scalars, _ = measured(*zip(*frames))
  truth = [_annotations(true_parts(t, s, THINGS)) for t, s, _ in frames]
  found = [_annotations(predicted_parts(p, THINGS)) for _, _, p in frames]
  theirs = hotcoco.panoptic.PanopticEval(_data_set(truth), _data_set(found))
  theirs.evaluate()
  results = theirs.results()
  assert 0.2 < scalars["pq"] < 0.9
  for name, of in (("pq", "All"), ("pq_things", "Things"), ("pq_stuff", "Stuff")):
    assert scalars[name] == pytest.approx(results[of]["pq"], abs=1e-6), name
  assert scalars["sq"] == pytest.approx(results["All"]["sq"], abs=1e-6)


def _random_frame(draw):
  """Blocks of classes and void, objects of several blocks, and a prediction with some blocks changed."""
  blocks = draw.choice([0, 1, 2, 3, IGNORE], (6, 6), p=[0.3, 0.2, 0.2, 0.2, 0.1])
  spread = lambda values: np.kron(values, np.ones((4, 4), int))
  truth = spread(blocks).astype(np.uint8)
  segments = predicted_parts(np.where(truth == IGNORE, 0, truth).astype(np.uint8), THINGS).numbers + 1
  predicted = spread(np.where(draw.random((6, 6)) < 0.15, draw.integers(0, 4, (6, 6)), blocks))
  predicted[predicted == IGNORE] = 1
  predicted[draw.random(predicted.shape) < 0.02] = 3
  return truth, segments.astype(np.int32), predicted.astype(np.uint8)


def _annotations(parts):
  return [
    {
      "category_id": int(kind) + 1,
      "iscrowd": 0,
      "area": int(area),
      "segmentation": instance_masks.to_coco(instance_masks.from_pixels(parts.numbers == i)),
    }
    for i, (kind, area) in enumerate(zip(parts.classes, parts.areas))
    if kind != IGNORE
  ]


def _data_set(frames):
  listed = [{"image_id": i + 1, **of} for i, frame in enumerate(frames) for of in frame]
  return {
    "images": [
      {"id": i + 1, "height": 24, "width": 24, "file_name": f"{i}.png"} for i, _ in enumerate(frames)
    ],
    "annotations": [{"id": i, "bbox": [0, 0, 24, 24], "score": 1.0, **of} for i, of in enumerate(listed, 1)],
    "categories": [
      {"id": i, "name": name, "isthing": int(name in ("car", "dog"))} for i, name in enumerate(NAMES, 1)
    ],
  }
