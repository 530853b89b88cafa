"""Test-time training along videos: a toy network that learns the brightness of a stream."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssl_jax import parallel, tasks
from ssl_jax.abilities import Adaptable, Segmenter
from ssl_jax.core import Weights
from ssl_jax.data.mask_values import IGNORE
from ssl_jax.data.segments import EncodedSegments
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.tasks import stream_scores
from ssl_jax.tasks.backbone import Backbone, encoder_only
from ssl_jax.tasks.partial_results import PartialResults
from ssl_jax.tasks.video_streams import find_videos
from tests.tasks.masked_images import NAMES, data_of, painted, records_of

LEVELS = np.array([0.2, 0.5, 0.8], np.float32)  # grey of the three classes
LENGTHS = {"a": 9, "b": 6}
SGD = dict(
  optimizer="sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.0, learning_rate=0.4, encoder_rate=1.0
)

AVERAGES = dict(vote=3, smoothing=0.6)


def network(names=NAMES) -> Backbone:
  """Names a pixel by the nearest grey level, after a correction of brightness that it learns."""

  def predict(params, model_state, images):
    grey = images.mean(-1, keepdims=True) + params["encoder"]["shift"]
    return -20 * jnp.square(grey - LEVELS[None, None, None])

  def loss(params, model_state, images):
    return jnp.square(images.mean((1, 2, 3)) + params["encoder"]["shift"] - LEVELS.mean())

  adaptable = Adaptable(
    make_task=lambda key, batch: batch["image"],
    loss=loss,
    predict=lambda params, state, batch: predict(params, state, batch["image"]),
    trainable=("encoder",),
  )
  abilities = {Segmenter: Segmenter(predict), Adaptable: adaptable}
  method = encoder_only(lambda params, state, images: images.mean((1, 2)), abilities)
  weights = Weights({"encoder": {"shift": jnp.zeros(())}}, {})
  return Backbone(weights, method, {"backbone": "brightness"}, class_names=names)


def streams(names=("a", "b"), drift=0.03, noise=0.05, moving=1, length=0):
  """Videos of three stripes that move and grow darker, with noise in the brightness of each frame."""
  records = []
  for name in names:
    draw = np.random.default_rng(ord(name))
    for moment in range(length or LENGTHS.get(name, LENGTHS["a"])):
      mask = np.repeat(np.arange(3, dtype=np.uint8), 6)[None].repeat(16, 0)
      mask = np.roll(
        mask, moving * moment + 5 * (name == "b"), axis=1
      )  # no two frames of a moment have one truth
      grey = LEVELS[mask] - drift * moment + draw.normal(0, noise, mask.shape) + draw.normal(0, 0.03)
      image = (255 * grey).clip(0, 255).astype(np.uint8)[..., None].repeat(3, -1)
      records.append({"image": image, "mask": mask, "label": -1, "clip_name": name})
  data = data_of(records)
  assert data.records is not None
  test = data.records._replace(fields=(*data.records.fields, "clip_name"))
  return data._replace(records=test)


def run(data=None, kept=None, mesh=None, seed=0, names=NAMES, **options):
  task = tasks.make("ttt_video", **{**SGD, "copies": 4, "window": 4, "block": 3, **options})
  more = {"partial_results": kept} if kept else {}
  mesh = mesh or parallel.make_mesh(jax.devices()[:1])
  return task.run(network(names), data or streams(), mesh, jax.random.key(seed), **more)


def by_frame(result) -> dict[tuple[int, int], np.ndarray]:
  """The scores of KINDS by position in the test split."""
  rows = result.predictions
  found = stream_scores.frame_iou(rows["truth"][:, None], rows["intersection"], rows["predicted"])
  return dict(zip(rows["index"].tolist(), found))


def test_learning_on_a_stream_that_drifts_helps():
  result = run()
  assert result.scalars["miou"] > result.scalars["miou_frozen"] + 0.05
  assert result.scalars["miou"] > result.scalars["miou_before"]
  assert result.protocol["videos"] == LENGTHS and result.protocol["test_rows"] == 15
  assert result.protocol["standard_error"]["gain"] > 0
  json.dumps(result.protocol)


def test_without_steps_it_is_the_trained_network():
  result = run(steps=0)
  assert result.scalars["gain"] == 0 and result.scalars["miou"] == result.scalars["miou_frozen"]


def test_a_rate_of_nothing_is_the_trained_network():
  found = run(learning_rate=1e-30).predictions["intersection"]
  np.testing.assert_array_equal(found[:, 0], found[:, 2])
  assert (run().predictions["intersection"][:, 0] != found[:, 2]).any()


def test_no_memory_is_a_step_from_the_trained_parameters_on_each_frame_alone():
  """By hand: the gradient of the squared distance of a frame's mean grey from the middle level."""
  found = run(carry=False, window=1)
  data = streams()
  assert data.records is not None
  for row, position in enumerate(found.predictions["index"]):
    record = data.records.record(int(position))
    grey = record["image"].astype(np.float32).mean(-1) / 255
    shift = -SGD["learning_rate"] * 2 * (grey.mean() - LEVELS.mean())
    predicted = np.square(grey[..., None] + shift - LEVELS).argmin(-1)
    right = np.bincount(record["mask"][predicted == record["mask"]], minlength=3)
    np.testing.assert_allclose(found.predictions["intersection"][row, 0, :3], right, atol=1)


@pytest.mark.parametrize("options", [{}, dict(window=0), dict(balance=0.1, **AVERAGES)])
def test_frames_that_are_still_to_come_play_no_part(options):
  """The first frames of a stream are predicted alike, whatever follows."""
  whole, short = by_frame(run(streams(["a"]), **options)), by_frame(run(streams(["a"], length=5), **options))
  assert len(short) == 5 and len(whole) == 9
  for position, scores in short.items():
    np.testing.assert_array_equal(scores, whole[position])


def test_memory_is_better_than_none_on_a_slow_drift():
  """One small step a frame: without a memory the correction never gets far."""
  slow = {"learning_rate": 0.1}
  none = run(carry=False, window=1, **slow).scalars["miou"]
  assert run(carry=True, window=1, **slow).scalars["miou"] > none


@pytest.mark.parametrize("options", [{}, AVERAGES])
def test_each_video_begins_with_the_trained_parameters(options):
  """Whatever the video before it was."""
  found, other = by_frame(run(**options)), by_frame(run(streams(["c", "b"]), **options))
  assert (found[0] != other[0]).any()
  for position in range(LENGTHS["a"], LENGTHS["a"] + LENGTHS["b"]):
    np.testing.assert_array_equal(found[position], other[position])
  first = found[LENGTHS["a"]]
  assert first[1] == first[2]  # before its first step


def test_without_memory_the_order_of_frames_does_not_matter():
  options = dict(carry=False, window=1)
  in_order, mixed = (by_frame(run(order=order, **options)) for order in ("time", "shuffled"))
  assert in_order.keys() == mixed.keys()
  assert all((in_order[position] == mixed[position]).all() for position in in_order)
  in_order, mixed = (run(order=order, learning_rate=0.1, window=1) for order in ("time", "shuffled"))
  assert in_order.scalars["miou"] > mixed.scalars["miou"]


@pytest.mark.parametrize("options", [{}, dict(balance=0.1, **AVERAGES)])
@pytest.mark.parametrize("devices, together", [(1, 2), (2, 1)])
def test_videos_side_by_side_give_the_same_results(devices, together, options):
  mesh = parallel.make_mesh(jax.devices()[:devices])
  one, several = by_frame(run(**options)), by_frame(run(mesh=mesh, together=together, **options))
  assert one.keys() == several.keys()
  for position, scores in one.items():
    np.testing.assert_allclose(several[position], scores, atol=0.02)


@pytest.mark.parametrize(
  "options", [{}, dict(smoothing=0.6), dict(balance=0.1, learning_rate=1.0, **AVERAGES)]
)
def test_a_stopped_run_goes_on_at_its_frame(tmp_path, monkeypatch, options):
  whole = run(**options)
  kept = PartialResults(tmp_path / "kept.npz")
  polls = iter(range(100))
  with monkeypatch.context() as patch:
    patch.setattr(Stop, "poll", lambda self: "SIGTERM" if next(polls) == 3 else "")
    with pytest.raises(Stopped, match="stopped by SIGTERM after 4 of 15 frames"):
      run(kept=kept, **options)
  seen = []
  task = tasks.make("ttt_video", **{**SGD, "copies": 4, "window": 4, "block": 3, **options})
  again = task.run(
    network(),
    streams(),
    parallel.make_mesh(jax.devices()[:1]),
    jax.random.key(0),
    partial_results=kept,
    progress=lambda done, total, loss: seen.append(done),
  )
  assert seen[0] == 5 and again.scalars == whole.scalars
  for name, rows in whole.predictions.items():
    np.testing.assert_array_equal(rows, again.predictions[name], err_msg=name)


def with_objects(data=None, unlabelled=()):
  """The streams with segments: every stripe is one, and the last class is that of objects.

  Args:
    unlabelled: positions of frames without labels.
  """
  data = data or streams()
  assert data.records is not None
  records = []
  for position in range(data.test_size):
    record = dict(data.records.record(position))
    if position in unlabelled:
      record["mask"] = np.full_like(record["mask"], IGNORE)
    mask = io.BytesIO()
    Image.fromarray(record["mask"]).save(mask, "PNG")
    empty = position in unlabelled
    records.append({**record, "segments": EncodedSegments(b"" if empty else mask.getvalue())})
  test = records_of(records)._replace(
    fields=(*data.records.fields, "segments"),
    things=("tree",),
    clip_names=tuple(record["clip_name"] for record in records),
  )
  return data._replace(records=test)


def test_further_scores_are_those_of_the_same_frames(tmp_path, monkeypatch):
  """A run that is stopped and goes on has the same scores, and the scores change nothing else."""
  options = dict(scores=("instances", "panoptic"))
  plain, whole = run(), run(with_objects(), **options)
  assert {name: whole.scalars[name] for name in plain.scalars} == plain.scalars
  assert 0 < whole.scalars["pq_frozen"] < whole.scalars["pq"] < 1
  assert 0 < whole.scalars["mask_ap_frozen"] < whole.scalars["mask_ap"] <= 1
  assert whole.protocol["panoptic"]["things"] == ["tree"] and whole.protocol["scores"] == list(
    options["scores"]
  )
  json.dumps(whole.protocol)
  kept = PartialResults(tmp_path / "kept.npz")
  polls = iter(range(100))
  with monkeypatch.context() as patch:
    patch.setattr(Stop, "poll", lambda self: "SIGTERM" if next(polls) == 3 else "")
    with pytest.raises(Stopped, match="after 4 of 15 frames"):
      run(with_objects(), kept=kept, **options)
  again = run(with_objects(), kept=kept, **options)
  assert again.scalars == whole.scalars
  for name, rows in whole.predictions.items():
    np.testing.assert_array_equal(rows, again.predictions[name], err_msg=name)


def test_contours_need_a_background():
  data = streams()
  with pytest.raises(ValueError, match="scores has 'davis', which needs a class 'background'"):
    run(data, scores=("davis",))
  assert data.records is not None
  names = ("background", *NAMES[1:])
  found = run(data._replace(records=data.records._replace(class_names=names)), names=names, scores=("davis",))
  assert 0 < found.scalars["j_and_f_frozen"] < found.scalars["j_and_f"] <= 1


def test_scores_that_the_records_do_not_allow_are_refused():
  with pytest.raises(ValueError, match="has 'panoptic', which needs test masks that tell objects apart"):
    run(scores=("panoptic",))
  with pytest.raises(ValueError, match="config.tasks.ttt_video.scores is 'davies'; did you mean 'davis'"):
    run(scores=("davies",))


def test_frames_without_labels_are_learnt_from_but_do_not_count():
  every, some = run(), run(with_objects(unlabelled=range(0, 15, 2)), scores=("instances", "panoptic"))
  labelled = range(1, 15, 2)
  assert some.scalars["miou"] == pytest.approx(np.mean([by_frame(every)[i][0] for i in labelled]))
  assert some.protocol["labelled_rows"] == 7 and some.protocol["test_rows"] == 15
  assert some.scalars["pq"] > 0 and some.scalars["mask_ap"] > 0
  first = run(with_objects(unlabelled=range(9)))  # no frame of the first video
  assert set(first.protocol["by_video"]) == {"b"}
  assert first.scalars["miou"] == pytest.approx(np.mean([by_frame(every)[i][0] for i in range(9, 15)]))
  with pytest.raises(ValueError, match="not one of the 15 test frames has a pixel with a class"):
    run(with_objects(unlabelled=range(15)))


def test_clips_are_found_without_reading_records():
  data = with_objects()
  assert data.records is not None

  def read(index):
    raise AssertionError(f"record {index} was read")

  silent = data._replace(records=data.records._replace(record=read))
  assert [(v.name, len(v.frames)) for v in find_videos(silent, shuffled=False, seed=0)] == [
    ("a", 9),
    ("b", 6),
  ]


def test_offline_learns_before_the_first_frame():
  result = run(steps=0, offline=20)
  assert result.scalars["miou"] == result.scalars["miou_before"] > result.scalars["miou_frozen"]


def test_a_network_that_finds_other_classes_is_reset():
  """A step that is far too large leaves a frame with fewer classes, and the next begins as trained."""
  wild = dict(learning_rate=30.0, window=1)
  guarded, free = run(balance=0.1, **wild), run(**wild)
  assert "resets" not in free.scalars and "reset" not in free.predictions
  reset = guarded.predictions["reset"]
  assert 0 < guarded.scalars["resets"] == reset.mean()
  assert guarded.protocol["resets"] == {"a": int(reset[:9].sum()), "b": int(reset[9:].sum())}
  before, frozen = (guarded.predictions["intersection"][:, kind] for kind in (1, 2))
  for row in np.flatnonzero(reset[:-1]):
    np.testing.assert_array_equal(before[row + 1], frozen[row + 1])
  assert guarded.scalars["miou_before"] > free.scalars["miou_before"]


def test_a_guard_that_never_acts_changes_nothing():
  plain, guarded = run(), run(balance=5.0)
  assert guarded.scalars == {**plain.scalars, "resets": 0.0}


def test_a_mean_over_time_helps_where_nothing_moves_with_and_without_learning():
  data = lambda: streams(noise=0.2, drift=0.03, moving=0)
  plain, smooth = run(data(), steps=0), run(data(), steps=0, smoothing=0.7)
  assert smooth.scalars["gain"] > 0.1
  for name in ("miou_frozen", "miou_before"):
    assert smooth.scalars[name] == plain.scalars["miou"]
  learned, both = run(data()), run(data(), smoothing=0.7)
  assert both.scalars["miou"] > learned.scalars["miou"] + 0.05
  assert both.scalars["miou_before"] == learned.scalars["miou_before"]  # what is learned is the same
  first = by_frame(smooth)[0]
  assert first[0] == first[2]  # nothing is before the first frame


def test_votes_of_copies_are_counted_with_and_without_learning():
  """A network that sees single pixels gets the votes that it has already."""
  for options in (dict(steps=0), {}):
    plain, voted = run(**options), run(vote=4, **options)
    np.testing.assert_array_equal(plain.predictions["intersection"], voted.predictions["intersection"])
    assert voted.protocol["vote"] == 4


def test_pictures_are_drawn(tmp_path):
  result = run()
  assert result.plot is not None
  result.plot(tmp_path / "streams", "a title")
  assert {path.name for path in tmp_path.iterdir()} == {"streams.png", "streams.gif", "streams-strip.png"}


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(window=-1), "config.tasks.ttt_video.window is -1; use 0 or more"),
    (dict(offline=10), "offline is 10, which learns before the first frame; use steps=0"),
    (dict(balance=-0.1), "config.tasks.ttt_video.balance is -0.1; use 0 or more"),
    (dict(balance=0.1, carry=False), "balance is 0.1, which resets .* use carry=True .is False."),
    (dict(balance=0.1, steps=0), "one step or more .steps is 0., or balance=0"),
    (dict(vote=-1), "config.tasks.ttt_video.vote is -1; use 0 for no vote"),
    (dict(smoothing=1.0), r"config.tasks.ttt_video.smoothing is 1.0; use .* in \[0, 1\)"),
    (dict(confidence=1.0), r"config.tasks.ttt_video.confidence is 1.0; use a probability in \[0, 1\)"),
    (dict(smooting=0.5), "config.tasks.ttt_video.smooting is unknown; did you mean 'smoothing'"),
    (
      dict(objective="selftraining"),
      "config.tasks.ttt_video.objective is 'selftraining'; did you mean 'self_tr",
    ),
    (dict(block=0), "config.tasks.ttt_video.block is 0; use 1 or more"),
    (dict(copies=0), "copies=0"),
  ],
)
def test_options_out_of_range_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    run(**options)


def test_images_without_videos_are_refused():
  with pytest.raises(
    ValueError, match="needs 'mask' and 'clip_name' in every test record, but they have only"
  ):
    run(data_of(painted(3, 0)))


def test_the_score_of_a_frame_counts_the_classes_that_are_there():
  truth, intersection, predicted = np.array([4, 6, 0]), np.array([3, 6, 0]), np.array([3, 6, 1])
  assert stream_scores.frame_iou(truth, intersection, predicted) == pytest.approx((3 / 4 + 1) / 2)
  assert np.isnan(stream_scores.frame_iou(np.zeros(3), np.zeros(3), np.ones(3)))
