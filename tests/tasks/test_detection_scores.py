"""Detection scores: VOC's against an independent version, COCO's against pycocotools, both by hand."""

import json
import sys
import zipfile

import numpy as np
import pytest

from ssl_jax.data import instance_masks, sources
from ssl_jax.data.objects import Objects, of_record
from ssl_jax.tasks import detection_scores
from ssl_jax.tasks.detection_scores import THRESHOLDS, Detected, coco_scores, voc_ap, voc_scores
from tests.tasks.reference_scores import reference_coco

CLASSES, SIDE = 4, 160


def truth_of(boxes, classes=None, *, crowd=None, difficult=None, area=None, masks=None):
  boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
  flags = lambda given: np.zeros(len(boxes), bool) if given is None else np.asarray(given, bool)
  classes = np.zeros(len(boxes), np.int32) if classes is None else np.asarray(classes, np.int32)
  area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64) if area is None else area
  return Objects(boxes, classes, flags(crowd), flags(difficult), area, masks)


def found_of(boxes, scores, classes=None, masks=None):
  boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
  classes = np.zeros(len(boxes), np.int32) if classes is None else np.asarray(classes, np.int32)
  return Detected(boxes, classes, np.asarray(scores, np.float32), masks)


def outline_of(box):
  """A polygon in a box, as COCO's masks are stored."""
  x1, y1, x2, y2 = box
  return instance_masks.from_coco([[x1, y1, x2, y1 + 1, (x1 + x2) / 2, y2, x1, y2]], SIDE, SIDE)


def mask_in(draw, box):
  """An ellipse in a box, with a hole."""
  y, x = np.mgrid[:SIDE, :SIDE] + 0.5
  x1, y1, x2, y2 = box
  radius = ((x - (x1 + x2) / 2) / (x2 - x1) * 2) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1) * 2) ** 2
  return instance_masks.from_pixels((radius < 1) & (radius > draw.uniform(0, 0.3)))


def random_data(seed, images=12, masks=False):
  """Truths with crowds and difficult ones; detections near them, far away, and many of equal scores."""
  draw = np.random.default_rng(seed)
  truths, detections = [], []
  for _ in range(images):
    count = draw.integers(0, 8)
    corners = draw.uniform(0, SIDE - 60, (count, 2))
    boxes = np.concatenate([corners, corners + draw.uniform(4, 60, (count, 2))], 1)
    boxes[: count // 3, 2:] = boxes[: count // 3, :2] + 100 * draw.random((count // 3, 2)) + 2
    boxes = np.clip(boxes, 0, SIDE)
    classes = draw.integers(0, CLASSES - 1, count)  # the last class has no truth
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * draw.uniform(0.5, 1, count)
    near = np.repeat(boxes, 3, axis=0) + draw.normal(0, 4, (3 * count, 4))
    guesses = np.where(
      draw.random(3 * count) < 0.8, np.repeat(classes, 3), draw.integers(0, CLASSES, 3 * count)
    )
    far = draw.uniform(0, 80, (draw.integers(0, 4), 4)) + [0, 0, 80, 80]
    near = np.concatenate([near, far])
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    guesses = np.concatenate([guesses, draw.integers(0, CLASSES, len(far))])
    encoded = lambda rows: tuple(mask_in(draw, row) for row in rows) if masks else None
    flags = draw.random((2, count)) < 0.2
    stored = encoded(boxes)
    if stored is not None:
      stored = tuple(mask if i % 3 else outline_of(boxes[i]) for i, mask in enumerate(stored))
    truths.append(truth_of(boxes, classes, crowd=flags[0], difficult=flags[1], area=area, masks=stored))
    scores = np.round(draw.random(len(near)), 1)
    detections.append(found_of(near, scores, guesses, encoded(near)))
  return truths, detections


def reference_voc(truths, detections, number, overlap, eleven):
  """VOC's average precision of a class, written from its description, with whole lists and loops."""
  entries = [
    (-float(score), image, k, box)
    for image, found in enumerate(detections)
    for k, (box, kind, score) in enumerate(zip(found.boxes, found.classes, found.scores, strict=True))
    if kind == number
  ]
  entries.sort(key=lambda entry: entry[:3])
  taken, right, wrong, curve = set(), 0, 0, []
  total = sum(int(((t.classes == number) & ~t.difficult).sum()) for t in truths)
  for _, image, _, box in entries:
    truth = truths[image]
    best, place = 0.0, None
    for j in np.flatnonzero(truth.classes == number):
      a, b = [float(v) for v in box], [float(v) for v in truth.boxes[j]]
      width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
      if width > 0 and height > 0:
        areas = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
        value = width * height / (areas - width * height)
        if value > best:
          best, place = value, int(j)
    if best > overlap and truth.difficult[place]:
      curve.append((right / total if total else np.nan, right / max(right + wrong, 1)))
      continue
    if best > overlap and (image, place) not in taken:
      taken.add((image, place))
      right += 1
    else:
      wrong += 1
    curve.append((right / total if total else np.nan, right / (right + wrong)))
  if not total:
    return np.nan
  if eleven:
    return sum(max([p for r, p in curve if r >= t], default=0) for t in np.arange(0, 1.1, 0.1)) / 11
  area, last = 0.0, 0.0
  for k, (recall, _) in enumerate(curve):
    area += (recall - last) * max(p for _, p in curve[k:])
    last = recall
  return area


@pytest.mark.parametrize("form", ["11-point", "area"])
@pytest.mark.parametrize("seed", range(5))
def test_voc_equals_an_independent_version(seed, form):
  truths, detections = random_data(seed)
  for overlap in (0.5, 0.75):
    expected = [reference_voc(truths, detections, c, overlap, form == "11-point") for c in range(CLASSES)]
    found = voc_ap(truths, detections, CLASSES, overlap=overlap, form=form)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.isnan(found[-1]) and 0.02 < np.nanmean(found) < 0.9
  scores = voc_scores(truths, detections, CLASSES, form=form)
  expected = [voc_ap(truths, detections, CLASSES, overlap=o, form=form) for o in THRESHOLDS]
  np.testing.assert_array_equal(scores.by_class, expected)
  assert scores.ap == pytest.approx(np.nanmean(expected)) and scores.ap50 == pytest.approx(
    np.nanmean(expected[0])
  )
  assert list(scores.scalars())[0] == {"11-point": "voc_11_point_ap", "area": "voc_area_ap"}[form]


BOX = [10.0, 10, 60, 60]


def one_by_one(hits):
  """Two objects, and detections by falling score that do or do not hit one of them."""
  truths = truth_of([BOX, [80, 80, 120, 130]])
  places, boxes = iter(truths.boxes), []
  for hit in hits:
    boxes.append(next(places) if hit else [130, 5, 150, 20])
  return [truths], [found_of(boxes, np.linspace(0.9, 0.1, len(hits)))]


def test_numbers_by_hand():
  truths, detections = one_by_one([True, False, True])
  assert voc_ap(truths, detections, 1, form="11-point")[0] == pytest.approx((6 + 5 * 2 / 3) / 11)
  assert voc_ap(truths, detections, 1, form="area")[0] == pytest.approx(0.5 + 0.5 * 2 / 3)
  coco = coco_scores(truths, detections, 1)
  assert coco.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101) and coco.ap == pytest.approx(coco.ap75)
  shifted = [found_of([[10, 10, 41, 60]], [0.5])]  # an overlap of 0.62
  assert coco_scores([truth_of([BOX])], shifted, 1).ap == pytest.approx(0.3)
  assert voc_scores([truth_of([BOX])], shifted, 1, form="area").ap == pytest.approx(0.3)
  perfect = [found_of([BOX], [0.1])]
  assert voc_scores([truth_of([BOX])], perfect, 1, form="11-point").scalars() == {
    "voc_11_point_ap": 1,
    "voc_11_point_ap50": 1,
    "voc_11_point_ap75": 1,
  }
  assert coco_scores([truth_of([BOX])], perfect, 1).scalars()["coco_box_ap"] == 1


def test_an_overlap_of_exactly_one_half_is_a_miss_for_voc_and_a_hit_for_coco():
  truths, detections = [truth_of([[0, 0, 10, 10]])], [found_of([[0, 0, 10, 5]], [0.5])]
  assert voc_ap(truths, detections, 1, form="area")[0] == 0
  assert coco_scores(truths, detections, 1).ap50 == 1


def test_difficult_objects_count_neither_way():
  truths = [truth_of([BOX, [80, 80, 120, 130]], difficult=[False, True])]
  both = [found_of(truths[0].boxes, [0.5, 0.9])]
  assert voc_ap(truths, both, 1, form="area")[0] == 1
  twice = [found_of([truths[0].boxes[1], truths[0].boxes[1], BOX], [0.9, 0.8, 0.5])]
  assert voc_ap(truths, twice, 1, form="area")[0] == 1
  again = [found_of([BOX, BOX], [0.5, 0.9])]  # of an object that counts, the second is wrong
  assert voc_ap(truths, again, 1, form="area")[0] == 1
  assert voc_ap([truth_of([BOX, BOX])], again, 1, form="area")[0] == 0.5


def test_rounding_is_that_of_the_files_of_voc():
  truths = [truth_of([[0, 0, 10, 10]]), truth_of([[0, 0, 10, 10]])]
  detections = [found_of([[0, 0, 10, 5.04]], [0.9]), found_of([[20, 0, 30, 10]], [0.5])]
  assert voc_ap(truths, detections, 1, form="area")[0] == 0.5
  assert voc_ap(truths, detections, 1, form="area", rounded=True)[0] == 0
  detections = [found_of([[20, 0, 30, 10], BOX], [0.5004, 0.1]), found_of([[0, 0, 10, 10]], [0.5003])]
  assert voc_ap(truths[::-1], detections, 1, form="area")[0] == 0.25
  swapped = [detections[1], detections[0]]
  assert (
    voc_ap(truths, swapped, 1, form="area", rounded=True)[0] == 0.5
  )  # equal scores: the first image first


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(3))
def test_coco_equals_pycocotools(seed, kind):
  pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed: extra `detection`")
  truths, detections = random_data(10 + seed, masks=kind == "mask")
  precision, stats = reference_coco(truths, detections, CLASSES, kind)
  scores = coco_scores(truths, detections, CLASSES, kind=kind)
  mine = [scores.ap, scores.ap50, scores.ap75, scores.small, scores.medium, scores.large]
  np.testing.assert_allclose(np.nan_to_num(mine, nan=-1), stats[:6], atol=1e-6)
  for c in range(CLASSES - 1):
    assert scores.by_class[c] == pytest.approx(precision[:, :, c, 0].mean(), abs=1e-6)
  assert np.isnan(scores.by_class[-1]) and 0.01 < scores.ap < 0.9
  assert list(scores.scalars())[0] == f"coco_{kind}_ap"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_coco_equals_pycocotools_on_real_truths(shared_data, tmp_path, kind):
  """People of photographs; the detections are the people of the same photograph, moved and resized."""
  pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed: extra `detection`")
  with zipfile.ZipFile(shared_data / "penn_fudan/val.zip") as archive:
    archive.extractall(tmp_path / "val")
  source = sources.make("coco", data_dir=str(tmp_path), split="val")
  truths = [of_record(source[i]) for i in range(len(source))]
  draw, detections = np.random.default_rng(0), []
  for truth in truths:
    shifts = draw.integers(-12, 13, (len(truth.boxes), 2))
    moved = tuple(
      instance_masks.from_pixels(np.roll(instance_masks.pixels(mask), shift, (1, 0)))
      for mask, shift in zip(truth.masks or (), shifts.tolist(), strict=True)
    )
    boxes = truth.boxes + np.tile(shifts, 2)
    detections.append(found_of(boxes, draw.random(len(boxes)), masks=moved))
  _, stats = reference_coco(truths, detections, 1, kind)
  scores = coco_scores(truths, detections, 1, kind=kind)
  mine = [scores.ap, scores.ap50, scores.ap75, scores.small, scores.medium, scores.large]
  np.testing.assert_allclose(np.nan_to_num(mine, nan=-1), stats[:6], atol=1e-6)
  assert 0.1 < scores.ap < 0.9
  perfect = [found_of(t.boxes, np.ones(len(t.boxes)), masks=t.masks) for t in truths]
  assert coco_scores(truths, perfect, 1, kind=kind).ap == pytest.approx(1)


def test_crowds_are_neither_found_nor_missed():
  truths = [truth_of([BOX, [80, 80, 150, 150]], crowd=[False, True])]
  inside = [found_of([[90, 90, 100, 100], BOX], [0.9, 0.5])]
  assert coco_scores(truths, inside, 1).ap == 1
  assert coco_scores(truths, [found_of([[2, 90, 12, 100], BOX], [0.9, 0.5])], 1).ap == 0.5


def test_images_without_truths_or_detections():
  nothing, none = truth_of([]), found_of([], [])
  truths, detections = one_by_one([True, True])
  for score in (
    lambda t, d: coco_scores(t, d, 1).ap,
    lambda t, d: voc_ap(t, d, 1, form="area")[0],
    lambda t, d: voc_ap(t, d, 1, form="11-point")[0],
  ):
    assert score([nothing, *truths], [none, *detections]) == 1
    assert score(truths, [none]) == 0
    assert np.isnan(score([nothing], [none])) and np.isnan(score([nothing], detections))
    assert score([nothing, *truths], [found_of([BOX], [1.0]), *detections]) == pytest.approx(2 / 3, abs=0.01)


def test_what_cannot_be_scored_is_refused(monkeypatch):
  truths, detections = one_by_one([True])
  with pytest.raises(ValueError, match="form is '11 point'; did you mean '11-point'"):
    voc_ap(truths, detections, 1, form="11 point")  # pyright: ignore[reportArgumentType]
  with pytest.raises(ValueError, match="truths of 2 images, but detections of 1"):
    voc_ap(truths * 2, detections, 1, form="area")
  with pytest.raises(ValueError, match="image 0 has an object of class 3; there are 2 classes"):
    coco_scores(truths, [found_of([BOX], [1.0], [3])], 2)
  with pytest.raises(ValueError, match="a detection of image 0 has a score that is not finite"):
    coco_scores(truths, [found_of([BOX], [np.nan])], 1)
  with pytest.raises(ValueError, match="kind is 'mask', but there are truths or detections without masks"):
    coco_scores(truths, detections, 1, kind="mask")
  monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
  with pytest.raises(ModuleNotFoundError, match=r"pip install 'ssl_jax\[detection\]'"):
    coco_scores(truths, detections, 1)
  assert json.dumps(detection_scores.FORMS)
