"""From stills to video: a toy classifier of grey levels on clips whose brightness drifts."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssl_jax import parallel, tasks
from ssl_jax.abilities import Adaptable, Classifier
from ssl_jax.core import Weights
from ssl_jax.tasks.backbone import Backbone, encoder_only
from ssl_jax.tasks.task import TaskData

SIZE = 8
NAMES = ("black", "coal", "white")  # of the network; black and coal are both dark
LEVELS = np.array([0.1, 0.2, 0.8], np.float32)
TABLE = {
  "classes": {"dark": ["black", "coal"], "bright": ["white"]},
  "clips": {"night": "dark", "day": "bright", "still": "dark"},
}
LENGTHS = {"night": 12, "day": 12, "still": 6}


def network() -> Backbone:
  def predict(params, model_state, images):
    grey = images.mean((1, 2, 3)) + params["encoder"]["shift"]
    return -20 * jnp.square(grey[:, None] - LEVELS[None])

  adaptable = Adaptable(
    make_task=lambda key, batch: batch["image"],
    # One corner of every image of the toy world is black, unless the frame is too bright.
    loss=lambda params, state, images: jnp.square(images.min((1, 2, 3)) + params["encoder"]["shift"]),
    predict=lambda params, state, batch: predict(params, state, batch["image"]),
    trainable=("encoder",),
  )
  abilities = {Classifier: Classifier(predict), Adaptable: adaptable}
  method = encoder_only(lambda params, state, images: images.mean((1, 2)), abilities)
  weights = Weights({"encoder": {"shift": jnp.zeros(())}}, {})
  return Backbone(weights, method, {"backbone": "grey"}, class_names=NAMES)


def painted(level: float, brighter: float = 0.0) -> np.ndarray:
  """uint8[8, 8, 3]: of this mean, with one black corner, and then brighter."""
  image = np.full((SIZE, SIZE, 3), level * 64 / 63, np.float32)
  image[0, 0] = 0
  return (255 * (image + brighter)).clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  """Folders of frames: night grows brighter until it looks like day."""
  root = tmp_path_factory.mktemp("clips")
  for name, level in {"night": 0.15, "day": 0.75, "still": 0.1}.items():
    (root / name).mkdir()
    for moment in range(LENGTHS[name]):
      brighter = 0.06 * moment if name == "night" else 0.0
      Image.fromarray(painted(level, brighter)).save(root / name / f"{moment:03}.png")
  (root / "table.json").write_text(json.dumps(TABLE))
  return root


def data_of(levels=(0.1, 0.2, 0.8), labels=(0, 1, 2)) -> TaskData:
  images = np.stack([painted(level) for level in levels])
  batch = {
    "image": images,
    "label": np.array(labels, np.int32),
    "index": np.arange(len(labels), dtype=np.int32),
  }
  nothing = lambda: iter(())
  protocol = {"crop": SIZE, "resize": SIZE, "interpolation": "bilinear"}
  return TaskData(
    nothing, lambda: iter([batch]), 3, class_names=NAMES, test_size=len(labels), protocol=protocol
  )


def run(clips, table="table.json", data=None, **options):
  task = tasks.make("stills_to_video", clips=str(clips), table=str(clips / table), reach=2, vote=3, **options)
  return task.run(network(), data or data_of(), parallel.make_mesh(jax.devices()[:1]), jax.random.key(0))


def test_the_drop_is_that_of_the_frames_that_changed(clips):
  result = run(clips)
  night = result.protocol["by_video"]["night"]
  assert 0 < night < 1 and result.protocol["by_video"]["day"] == 1
  assert result.scalars["stills"] == 1
  assert result.scalars["frame_accuracy"] == result.scalars["frozen"] == pytest.approx((night + 2) / 3)
  assert result.scalars["drop"] == pytest.approx(1 - result.scalars["frozen"])
  low, high = result.protocol["intervals"]["drop"]
  assert low <= result.scalars["drop"] <= high
  json.dumps(result.protocol)


def test_a_repeated_still_scores_as_the_still(clips):
  result = run(clips)
  assert result.protocol["by_video"]["still"] == 1
  wrong = run(clips, data=data_of(levels=(0.8, 0.2, 0.8)))
  assert wrong.scalars["stills"] == pytest.approx(2 / 3)
  # The same still, as an image of the test split and as each frame of a clip, is wrong in both.
  (clips / "wrong_class.json").write_text(json.dumps({**TABLE, "clips": {"still": "bright"}}))
  both = run(clips, "wrong_class.json", data=data_of(levels=(0.1,), labels=(2,)))
  names = ("stills", "frozen", "frame_accuracy", "anchor", "pm", "vote", "drop")
  assert [both.scalars[name] for name in names] == [0] * 7
  assert both.scalars["consistency"] == 1


def test_classes_are_compared_by_the_largest_of_theirs(clips):
  """coal for black is no error: both are dark."""
  assert run(clips, data=data_of(levels=(0.2, 0.1, 0.8))).scalars["stills"] == 1


def test_learning_along_the_clip_gives_accuracy_back(clips):
  learned = run(clips, steps=5, copies=2, learning_rate=0.3)
  assert learned.scalars["gain"] > 0.1
  assert learned.scalars["frame_accuracy"] > learned.scalars["frozen"]
  assert learned.scalars["drop_left"] < learned.scalars["drop"]
  reset = run(clips, steps=1, copies=2, learning_rate=0.1, carry=False)
  carried = run(clips, steps=1, copies=2, learning_rate=0.1)
  assert carried.scalars["frame_accuracy"] > reset.scalars["frame_accuracy"]


def test_the_order_of_clips_does_not_matter(clips, tmp_path):
  table = dict(TABLE, clips=dict(reversed(TABLE["clips"].items())))
  (clips / "other.json").write_text(json.dumps(table))
  options = dict(steps=1, copies=2, learning_rate=0.1)
  assert run(clips, **options).scalars == run(clips, "other.json", **options).scalars


def test_frames_without_the_object_are_not_counted(clips):
  absent = {"night": [[4, 12]]}
  (clips / "absent.json").write_text(json.dumps({**TABLE, "absent": absent}))
  assert run(clips, "absent.json").protocol["by_video"]["night"] == 1


@pytest.mark.parametrize(
  "change, message",
  [
    ({"clips": {"night": "dim"}}, "the clip 'night' is of class 'dim', which is not in 'classes'"),
    ({"clips": {"dusk": "dark"}}, "there is no clip 'dusk' in"),
    ({"classes": {"dark": ["grey"]}}, "class 'dark', have classes other than those of the network: grey"),
    ({"classes": 3}, "cannot be read"),
  ],
)
def test_wrong_tables_are_refused(clips, change, message):
  (clips / "wrong.json").write_text(json.dumps({**TABLE, **change}))
  with pytest.raises(ValueError, match=message):
    run(clips, "wrong.json")


def test_clips_and_table_must_be_given(clips):
  for given, message in (({}, "clips is empty"), ({"clips": str(clips)}, "table is empty")):
    task = tasks.make("stills_to_video", **given)
    with pytest.raises(ValueError, match=f"config.tasks.stills_to_video.{message}; give"):
      task.run(network(), data_of(), parallel.make_mesh(jax.devices()[:1]), jax.random.key(0))


def test_stills_of_other_classes_are_refused(clips):
  (clips / "bright.json").write_text(
    json.dumps({"classes": {"bright": ["white"]}, "clips": {"day": "bright"}})
  )
  with pytest.raises(ValueError, match="the test images have none of the classes"):
    run(clips, "bright.json", data=data_of(levels=(0.1,), labels=(0,)))
