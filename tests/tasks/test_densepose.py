"""The task densepose: a tiny network learns figures, and its score rises; what it refuses; its picture."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import methods, models
from ssl_jax.abilities import DensePose, ObjectDetector
from ssl_jax.core import DataSpec, Weights
from ssl_jax.data import host, sources
from ssl_jax.data.elements import host_batch
from ssl_jax.data.objects import of_record
from ssl_jax.data.whole_image import WholeImage
from ssl_jax.tasks import densepose, task
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.body_surface import chart_distance
from ssl_jax.tasks.densepose_scores import DenseDetected, compare
from ssl_jax.tasks.task import TaskData
from tests import made_people
from tests.made_people import Pose

SIDE = 64
FIGURES = [
  [Pose((32.0, 34.0), 54.0, arms=(0.3, 0.9), legs=(0.1, 0.35))],
  [Pose((30.0, 33.0), 52.0, arms=(1.1, 0.4), legs=(0.3, 0.1))],
]
TRANSFORM = host.image_densepose(host.Frame(SIDE), max_boxes=2, max_points=64, segment_size=56)
TINY = dict(
  channels=16,
  hidden=32,
  anchors=64,
  rois=16,
  before=(64, 64),
  proposals=(32, 16),
  detections=3,
  dense_channels=16,
  dense_width=32,
  dense_layers=2,
  dense_rois=3,
)


@functools.cache
def method():
  spec = DataSpec(100, 1, len(FIGURES), TRANSFORM.elements)
  return methods.make("densepose", models.make("resnet10", width=8), spec, **TINY)


def data_of(source) -> TaskData:
  records = [source[i] for i in range(len(source))]

  def batches(transform):
    made = host_batch(transform, records)
    index = np.arange(len(records), dtype=np.int32)
    yield {**made, "valid": np.ones(len(records), bool), "index": index}

  test = task.TestRecords(
    batches,
    lambda transform, indices: host_batch(transform, [records[i] for i in indices]),
    records.__getitem__,
    lambda: np.array([[SIDE, SIDE]] * len(records), np.int32),
    source.fields,
    source.class_names,
  )
  nothing = lambda: iter(())
  return TaskData(nothing, nothing, 1, records=test, test_size=len(records), protocol={"data": "figures"})


def backbone(weights) -> Backbone:
  return Backbone(weights, method(), {"backbone": "tiny"}, ("person",))


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
  """(The source, a batch of its two images)."""
  folder = tmp_path_factory.mktemp("people")
  made_people.write_people(folder, FIGURES)
  source = sources.make("coco", data_dir=str(folder), split="train")
  batch = host_batch(TRANSFORM, [source[i] for i in range(len(source))])
  batch = {name: jnp.asarray(leaf) for name, leaf in batch.items()}
  return source, batch | {"image": batch["image"].astype(jnp.float32) / 255}


@pytest.fixture(scope="module")
def untrained(figures):
  """The initial parameters, model state and extra state."""
  return jax.jit(method().init)(jax.random.key(0), figures[1])


@pytest.fixture(scope="module")
def learned(figures, untrained):
  """(Weights after some steps of Adam on the two figures, losses)."""
  params, state, extra = untrained
  batch, adam = figures[1], optax.adam(3e-3)

  @jax.jit
  def step(params, state, opt_state, key):
    (loss, aux), gradient = jax.value_and_grad(method().loss, has_aux=True)(params, state, extra, batch, key)
    with jax.numpy_dtype_promotion("standard"):
      updates, opt_state = adam.update(gradient, opt_state)
    return optax.apply_updates(params, updates), aux.model_state, opt_state, loss

  opt_state, found = adam.init(params), []
  for i in range(60):
    params, state, opt_state, loss = step(params, state, opt_state, jax.random.key(i))
    found.append(float(loss))
  return Weights(params, state), found


def measure(data, mesh, weights, **options):
  return densepose.make(**options).run(backbone(weights), data, mesh, jax.random.key(0))


def similarities(data, weights):
  """f64[N]: how similar the best detection of each image is to its person."""
  found, predict = [], jax.jit(method().abilities[DensePose].predict)
  for i in range(data.test_size):
    record = data.records.record(i)
    rows = data.records.read(WholeImage(0, 0, (SIDE, SIDE)), [i])
    images = jnp.asarray(rows["image"], jnp.float32) / 255
    made = jax.device_get(predict(*weights, images, jnp.asarray(rows["image_size"])))
    boxes, scores = made.detections.boxes[0], made.detections.scores[0]
    seen = DenseDetected(boxes, scores, made.further.parts[0], made.further.uv[0])
    image = compare(of_record(record), seen, distance=chart_distance, kappa="paper")
    found.append(image.similarity[0, 0])
  return np.array(found)


@pytest.mark.slow
def test_a_tiny_network_learns_figures(figures, untrained, learned):
  data, (after, losses) = data_of(figures[0]), learned
  assert losses[-1] < 0.25 * losses[0] and np.isfinite(losses).all()
  assert similarities(data, Weights(*untrained[:2])).max() < 0.05
  assert similarities(data, after).min() > 0.3


@pytest.mark.slow
def test_the_scores_rise_and_do_not_depend_on_the_devices(figures, untrained, learned, mesh_of, tmp_path):
  data, (after, _) = data_of(figures[0]), learned
  first, last = (measure(data, mesh_of(1), weights) for weights in (Weights(*untrained[:2]), after))
  assert first.scalars["chart_gpsm_ap50"] == 0 and last.scalars["chart_gpsm_ap50"] > 0.4
  assert measure(data, mesh_of(2), after).scalars == pytest.approx(last.scalars, abs=1e-6)
  last.plot(tmp_path / "figures", "two figures")
  assert (tmp_path / "figures.png").stat().st_size > 10_000


def test_the_result_says_what_it_measured(figures, untrained, mesh_of):
  data, weights = data_of(figures[0]), Weights(*untrained[:2])
  result = measure(data, mesh_of(1), weights)
  assert next(iter(result.scalars)) == "chart_gps_ap" and "coco_box_ap" in result.scalars
  assert result.protocol["kappa"] == 0.255 and result.protocol["distance"] == "chart"
  people = (result.protocol[name] for name in ("people", "annotated_people", "test_rows"))
  assert list(people) == [2, 2, 2]
  json.dumps(result.protocol)
  assert not np.isnan(list(result.scalars.values())).any() and "chart_gps_ap_large" not in result.scalars
  parts = measure(data, mesh_of(1), weights, kappa="parts")
  assert next(iter(parts.scalars)) == "chart_gps_ap_part_kappa" and parts.protocol["kappa"]["23"] == 0.15


def test_what_cannot_be_measured_is_refused(figures, untrained, mesh_of):
  data, after = data_of(figures[0]), Weights(*untrained[:2])
  bare = data._replace(records=data.records._replace(fields=("image", "boxes")))
  with pytest.raises(ValueError, match="needs the annotated points of every test image, but .* image, boxes"):
    measure(bare, mesh_of(1), after)
  nobody = lambda index: data.records.record(index) | {"dense_points": (None,)}
  with pytest.raises(ValueError, match="nobody in the test images that can be read has annotated points"):
    measure(data._replace(records=data.records._replace(record=nobody)), mesh_of(1), after)
  with pytest.raises(ValueError, match="config.tasks.densepose.longest is -1"):
    densepose.make(longest=-1)
  with pytest.raises(ValueError, match="kappa 'part'; did you mean 'parts'"):
    densepose.make(kappa="part")
  with pytest.raises(ValueError, match="the folder 'nowhere' of the geodesic distances lacks part.npy"):
    measure(data, mesh_of(1), after, geodesic="nowhere")
  several = method()
  two = several.abilities[ObjectDetector]._replace(num_classes=2)
  several = several._replace(abilities={**several.abilities, ObjectDetector: two})
  with pytest.raises(
    ValueError, match="the network distinguishes 2 classes; use one that was trained on people"
  ):
    densepose.make().run(backbone(after)._replace(method=several), data, mesh_of(1), jax.random.key(0))
  with pytest.raises(
    methods.MissingAbility, match="the ability DensePose.*methods with it: densepose; train"
  ):
    lacking = method()._replace(abilities={})
    densepose.make().run(backbone(after)._replace(method=lacking), data, mesh_of(1), jax.random.key(0))
