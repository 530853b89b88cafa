"""Geodesic point similarity and average precision: known values, COCO's evaluation, what does not count."""

import numpy as np
import pytest

from ssl_jax.data.body_parts import SEGMENT_OF_PART
from ssl_jax.data.objects import Objects
from ssl_jax.tasks import body_surface, densepose_scores
from ssl_jax.tasks.body_surface import Surface, chart_distance
from ssl_jax.tasks.densepose_scores import Compared, DenseDetected, compare
from ssl_jax.tasks.detection_scores import Detected, box_iou, coco_scores
from tests import made_people
from tests.made_people import Pose

POSE = Pose((30.0, 34.0), 52.0, arms=(0.3, 0.9), legs=(0.1, 0.35))
OTHER = Pose((120.0, 80.0), 130.0, arms=(1.2, 0.2))


def truth(*poses, bare=()):
  boxes = np.array([made_people.box_of(pose) for pose in poses], np.float32).reshape(-1, 4)
  flags = np.zeros(len(poses), bool)
  area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).astype(np.float64)
  dense = tuple(None if i in bare else made_people.annotate(pose, 40) for i, pose in enumerate(poses))
  return Objects(boxes, np.zeros(len(poses), np.int32), flags, flags, area, dense=dense)


def found(*poses, scores=(), size=256, offset=0.0):
  """Detections that see the figures as they are, with an offset to every U."""
  boxes = np.array([made_people.box_of(pose) for pose in poses], np.float32).reshape(-1, 4)
  shape = (len(poses), size, size)
  parts, uv = np.zeros(shape, np.uint8), np.zeros((*shape, 2), np.float32)
  for i, pose in enumerate(poses):
    part, place = made_people.surface(pose, made_people.grid(boxes[i], size, size))
    parts[i], uv[i] = part.reshape(shape[1:]), place.reshape(*shape[1:], 2)
  uv[..., 0] += offset
  return DenseDetected(boxes, np.asarray(scores or np.linspace(0.9, 0.5, len(poses)), np.float32), parts, uv)


def score(truths, detections, kappa="paper"):
  images = [
    compare(t, d, distance=chart_distance, kappa=kappa) for t, d in zip(truths, detections, strict=True)
  ]
  return densepose_scores.densepose_scores(images, distance="chart", kappa=kappa)


def test_a_perfect_prediction_scores_1():
  compared = compare(truth(POSE, OTHER), found(OTHER, POSE), distance=chart_distance, kappa="paper")
  np.testing.assert_allclose(compared.similarity, [[0, 1], [1, 0]], atol=1e-9)
  np.testing.assert_allclose(compared.masked.max(1), 1, atol=0.01)  # masks are compared on other cells
  gps, gpsm = score([truth(POSE), truth(POSE, OTHER)], [found(POSE), found(OTHER, POSE)])
  assert gps.ap == gps.ap50 == gps.ap75 == gps.recall == gps.medium == gps.large == gpsm.ap == 1
  assert gps.scalars() == {
    f"chart_gps_{name}": 1.0 for name in ("ap", "ap50", "ap75", "ap_medium", "ap_large", "recall")
  }
  assert next(iter(gpsm.scalars())) == "chart_gpsm_ap"


def test_an_offset_of_kappa_passes_three_of_ten_thresholds():
  away = found(POSE, offset=0.255)
  compared = compare(truth(POSE), away, distance=chart_distance, kappa="paper")
  assert compared.similarity[0, 0] == pytest.approx(np.exp(-0.5), abs=1e-6)  # 0.6065
  gps, gpsm = score([truth(POSE)], [away])
  assert gps.ap == pytest.approx(0.3) and gps.ap50 == 1 and gps.ap75 == 0
  assert compared.masked[0, 0] == pytest.approx(np.exp(-0.25), abs=0.01) and gpsm.ap == pytest.approx(0.6)


def test_kappa_may_depend_on_the_part():
  kappa = densepose_scores.part_kappa()
  assert kappa[1] == kappa[2] == 0.351 and kappa[3] == kappa[4] == 0.107 and kappa[23] == kappa[24] == 0.15
  assert all(len(set(kappa[SEGMENT_OF_PART == segment])) == 1 for segment in range(1, 15))
  person = made_people.annotate(POSE, 40)
  compared = compare(truth(POSE), found(POSE, offset=0.255), distance=chart_distance, kappa="parts")
  expected = np.exp(-np.square(0.255 / kappa[person.part]) / 2).mean()
  assert compared.similarity[0, 0] == pytest.approx(expected, abs=1e-5)
  names = score([truth(POSE)], [found(POSE)], "parts")[0].scalars()
  assert next(iter(names)) == "chart_gps_ap_part_kappa"


def test_points_that_a_detection_does_not_see_count_zero():
  whole = found(POSE)
  parts = whole.parts.copy()
  parts[:, :128] = 0
  person = made_people.annotate(POSE, 40)
  upper = (person.points[:, 1] < 0.5).mean()
  blind = compare(truth(POSE), whole._replace(parts=parts), distance=chart_distance, kappa="paper")
  assert 0.2 < upper < 0.8 and blind.similarity[0, 0] == pytest.approx(1 - upper)
  x1, y1, x2, y2 = whole.boxes[0]
  lower = np.array([[x1, (y1 + y2) / 2, x2, y2]], np.float32)  # a box of the lower half
  cut = DenseDetected(lower, whole.scores, whole.parts[:, 128:].repeat(2, 1), whole.uv[:, 128:].repeat(2, 1))
  half = compare(truth(POSE), cut, distance=chart_distance, kappa="paper")
  assert half.similarity[0, 0] == pytest.approx(1 - upper, abs=0.03)
  other = np.where(whole.parts > 0, 25 - whole.parts, 0).astype(np.uint8)
  assert score([truth(POSE)], [whole._replace(parts=other)])[0].ap == 0


def test_people_without_points_are_neither_found_nor_missed():
  image = truth(POSE, OTHER, bare=[1])
  assert score([image], [found(OTHER, POSE)])[0].ap == 1  # the better detection is that of a bare person
  far = found(OTHER, POSE)
  shifted = far._replace(boxes=far.boxes + np.array([[60, 0, 60, 0], [0] * 4], np.float32))
  assert score([image], [shifted])[0].ap == pytest.approx(0.5)  # that of nobody counts
  assert score([image, truth(OTHER, bare=[0])], [found(POSE), found(POSE, OTHER)])[0].ap == 1
  nobody = score([truth(OTHER, bare=[0])], [found(POSE)])[0]
  assert np.isnan(nobody.ap) and np.isnan(nobody.recall)
  assert score([image], [found()])[0].ap == 0


def test_a_second_detection_of_a_person_is_wrong():
  twice = found(POSE, POSE, scores=(0.5, 0.9))
  assert score([truth(POSE)], [twice])[0].ap == 1  # after all people are found
  assert score([truth(POSE, OTHER)], [found(POSE, POSE, OTHER)])[0].ap == pytest.approx(
    (51 + 50 * 2 / 3) / 101, abs=1e-6
  )


def test_only_the_best_twenty_detections_count():
  many = found(*[OTHER] * 20, POSE)
  assert score([truth(POSE)], [many])[0].recall == 0


def test_matching_is_that_of_cocos_evaluation():
  """With the overlap of boxes in place of the similarity, the scores are COCO's of boxes."""
  pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed: extra `detection`")
  random = np.random.default_rng(3)
  truths, detections, images = [], [], []
  for _ in range(12):
    count = int(random.integers(0, 5))
    corners = random.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(10, 160, (count, 2))], 1).astype(np.float32)
    near = np.repeat(boxes, 3, 0) + random.normal(0, 8, (3 * count, 4)).astype(np.float32)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    scores = random.uniform(size=len(near)).astype(np.float32)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).astype(np.float64)
    flags = np.zeros(count, bool)
    truths.append(Objects(boxes, np.zeros(count, np.int32), flags, flags, area))
    detections.append(Detected(near, np.zeros(len(near), np.int32), scores))
    order = np.argsort(-scores, kind="stable")
    near, overlap = near[order], box_iou(near[order], boxes)
    sides = np.prod(near[:, 2:] - near[:, :2], axis=1, dtype=np.float64)
    known = np.ones(count, bool)
    images.append(
      Compared(scores[order].astype(np.float64), overlap, overlap, np.zeros_like(overlap), known, area, sides)
    )
  gps, _ = densepose_scores.densepose_scores(images, distance="box")
  expected = coco_scores(truths, detections, 1)
  assert 0.05 < expected.ap < 0.9
  for name in ("ap", "ap50", "ap75", "medium", "large"):
    assert getattr(gps, name) == pytest.approx(getattr(expected, name), abs=1e-9), name


def test_of_equal_people_the_last_is_taken():
  similarity = np.array([[0.7, 0.7], [0.7, 0.0]])
  known, area = np.ones(2, bool), np.full(2, 5000.0)
  image = Compared(np.array([0.9, 0.8]), similarity, similarity, np.zeros((2, 2)), known, area, area)
  assert densepose_scores.densepose_scores([image], distance="chart")[0].ap50 == 1


def test_wrong_input_is_named():
  good = truth(POSE)
  with pytest.raises(ValueError, match="kappa is 'part'; did you mean 'parts'"):
    compare(good, found(POSE), distance=chart_distance, kappa="part")
  with pytest.raises(ValueError, match="an image has no annotation of DensePose"):
    compare(good._replace(dense=None), found(POSE), distance=chart_distance, kappa="paper")
  with pytest.raises(ValueError, match="a score that is not finite"):
    compare(good, found(POSE, scores=(np.nan,)), distance=chart_distance, kappa="paper")


def write_surface(folder, distances, **changes):
  """Three points of the chart of each part; the last of a part and the first of the next are one vertex."""
  part = np.repeat(np.arange(1, 25), 3)
  u = np.tile([0.0, 0.5, 1.0], 24)
  vertex = np.arange(72) - np.repeat(np.arange(24), 3)
  arrays = dict(part=part, u=u, v=np.zeros(72), vertex=vertex, distances=distances) | changes
  for name, leaf in arrays.items():
    np.save(folder / f"{name}.npy", leaf)
  return str(folder)


def test_geodesic_distances_are_read(tmp_path):
  vertices = 49
  random = np.random.default_rng(0).uniform(size=(vertices, vertices))
  square = np.tril(random, -1) + np.tril(random, -1).T
  triangle = np.concatenate([square[i, :i] for i in range(vertices)])
  true = Surface(np.array([1, 1, 1, 5]), np.array([[0.1, 0], [0.9, 0.2], [0.6, 0], [0.4, 0]], np.float32))
  other = Surface(np.array([2, 2, 1, 3]), np.array([[0.6, 0], [0.1, 0], [0.4, 0], [0.8, 0]], np.float32))
  vertex = lambda part, column: 2 * (part - 1) + column
  expected = [square[vertex(1, 0), vertex(2, 1)], 0, 0, square[vertex(5, 1), vertex(3, 2)]]
  for distances in (square, triangle, triangle[:, None]):
    distance = body_surface.read_geodesic(write_surface(tmp_path, distances))
    np.testing.assert_allclose(distance(true, other), expected)
    np.testing.assert_allclose(distance(other, true), expected)
  for change, message in (
    (dict(distances=triangle[:-1]), "has the shape .1175,., but there are 49 vertices"),
    (dict(distances=np.zeros(3)), "but there are 49 vertices"),
    (dict(distances=square, u=np.zeros(71)), "have 72, 71, 72 and 72 numbers"),
    (dict(distances=square, part=np.ones(72)), "parts from 1 to 24 that all occur"),
  ):
    with pytest.raises(ValueError, match=message):
      body_surface.read_geodesic(write_surface(tmp_path, **change))
  (tmp_path / "vertex.npy").unlink()
  with pytest.raises(ValueError, match="lacks vertex.npy"):
    body_surface.read_geodesic(str(tmp_path))
