"""Test-time training as a measure: its report, its exact resumption, and its independence of devices."""

import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment, methods, models, tasks
from ssl_jax.abilities import Adaptable, Classifier
from ssl_jax.core import DataSpec, Weights
from ssl_jax.run.stop import Stopped
from ssl_jax.tasks import adapted_splits
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.partial_results import PartialResults

KEY = jax.random.key(0)
SOME = ("clean", "brightness", "contrast")
QUICK = dict(copies=4, learning_rate=0.02, corruptions=SOME, examples=10)


@functools.cache
def network() -> Backbone:
  method = methods.make("joint", models.make("preresnet14", width=8, stem="small"), DataSpec(100, 10, 8))
  batch = {"image": jnp.zeros((2, 32, 32, 3)), "label": jnp.zeros(2, jnp.int32)}
  params, model_state, _ = jax.jit(method.init)(jax.random.key(1), batch)
  return Backbone(Weights(params, model_state), method, {"backbone": "toy"})


def without(kind: type) -> Backbone:
  """Returns the network without one of its abilities."""
  method = network().method
  kept = {other: what for other, what in method.abilities.items() if other != kind}
  return network()._replace(method=method._replace(abilities=kept))


@pytest.fixture(scope="module")
def data(make_data):
  draw = np.random.default_rng(0)
  images = draw.integers(0, 256, (12, 32, 32, 3), np.uint8), draw.integers(0, 10, 12).astype(np.int32)
  return make_data(
    images, images, 10, size=8, test_size=12, augment=augment.make("padded_crop", views=1, size=32, pad=4)
  )


@pytest.fixture(scope="module")
def undisturbed(data, mesh_of):
  """By mode: the result of an uninterrupted run on one device."""
  return functools.cache(
    lambda mode: tasks.make("ttt", mode=mode, steps=2, **QUICK).run(network(), data, mesh_of(1), KEY)
  )


@pytest.fixture(autouse=True)
def often(monkeypatch):
  monkeypatch.setattr(adapted_splits, "FETCH_EVERY", 3)


@pytest.mark.parametrize("mode", ["standard", "online"])
def test_what_is_reported(mode, data, mesh_of, undisturbed):
  found = undisturbed(mode)
  plain = tasks.make("robustness", corruptions=SOME[1:], severities=(5,), examples=10).run(
    network(), data, mesh_of(1), KEY
  )
  protocol = json.loads(json.dumps(found.protocol))
  assert list(found.scalars)[0] == "error" and set(SOME) <= set(found.scalars)
  # The mean leaves out the clean images.
  assert found.scalars["error"] == pytest.approx(np.mean([found.scalars[name] for name in SOME[1:]]))
  # The corrupted images are the same as in the other task.
  assert found.scalars["error_without"] == pytest.approx(plain.scalars["error"])
  assert found.scalars["gain"] == pytest.approx(found.scalars["error_without"] - found.scalars["error"])
  assert found.scalars["adapted"] == 1 and found.scalars["diverged"] == 0
  error = protocol["error"]["contrast"]["5"]
  assert protocol["standard_error"]["contrast"]["5"] == pytest.approx(np.sqrt(error * (1 - error) / 9))
  assert (
    len(protocol["losses"]["clean"]["0"]) == 2
    and protocol["test_rows"] == 10
    and protocol["trainable"] == ["encoder", "turns"]
  )
  ledger = protocol["ledger"]
  assert (
    ledger["passes_a_sample"] == {"forward_and_backward": 8, "forward": 2} and ledger["samples_at_once"] == 1
  )
  assert ledger["milliseconds_a_sample"] > 0 and ledger["bytes_a_device"] > 0


@pytest.mark.parametrize("mode", ["standard", "online"])
def test_stopped_and_resumed_is_as_if_never_stopped(mode, data, mesh_of, tmp_path, undisturbed):
  expected, kept, calls = undisturbed(mode), PartialResults(tmp_path / "unfinished" / "it.npz"), []
  task = tasks.make("ttt", mode=mode, steps=2, **QUICK)

  def stop_in_the_middle(done, total, loss):
    calls.append(done)
    if done >= 14:  # of 30: in the middle of the second corruption
      os.kill(os.getpid(), signal.SIGINT)

  with pytest.raises(Stopped, match="stopped by SIGINT after"):
    task.run(network(), data, mesh_of(1), KEY, progress=stop_in_the_middle, partial_results=kept)
  assert 14 <= calls[-1] < 20
  stopped = calls.pop()
  found = task.run(
    network(),
    data,
    mesh_of(1),
    KEY,
    progress=lambda done, total, loss: calls.append(done),
    partial_results=kept,
  )
  assert min(calls[-3:]) > stopped and calls[-1] == 30 and len(calls) < 30
  assert found.scalars == expected.scalars
  assert {k: v for k, v in found.protocol.items() if k != "ledger"} == {
    k: v for k, v in expected.protocol.items() if k != "ledger"
  }
  assert not (tmp_path / "unfinished" / "it.npz").exists()


def test_what_was_kept_for_something_else_is_not_used(tmp_path):
  kept = PartialResults(tmp_path / "it.npz")
  kept.save({"steps": 1}, {"rows": np.arange(3)})
  np.testing.assert_array_equal(kept.load({"steps": 1})["rows"], np.arange(3))
  assert kept.load({"steps": 2}) == {}
  kept.clear()
  assert kept.load({"steps": 1}) == {}


@pytest.mark.parametrize("mode", ["standard", "online"])
def test_eight_devices_and_several_at_once_find_the_same(mode, data, mesh_of, undisturbed):
  expected = undisturbed(mode)
  found = tasks.make("ttt", mode=mode, steps=2, together=1, **QUICK).run(network(), data, mesh_of(8), KEY)
  assert found.scalars == pytest.approx(expected.scalars)
  for name in SOME:
    for severity, losses in expected.protocol["losses"][name].items():
      np.testing.assert_allclose(found.protocol["losses"][name][severity], losses, rtol=1e-4)
  assert found.protocol["ledger"]["samples_at_once"] == 8


@pytest.mark.parametrize("objective, mode", [("tent", "online"), ("self_training", "standard")])
def test_a_classifier_without_a_task_is_adapted_by_its_own_predictions(objective, mode, data, mesh_of):
  """GroupNorm: what "norm" would adapt is not there."""
  options = dict(QUICK, corruptions=("contrast",), examples=4, confidence=0.05)
  found = tasks.make("ttt", mode=mode, steps=1, objective=objective, **options).run(
    without(Adaptable), data, mesh_of(1), KEY
  )
  protocol = json.loads(json.dumps(found.protocol))
  assert protocol["objective"] == objective and protocol["prior"] == 16 and found.scalars["adapted"] == 1
  assert protocol["trainable"] == {"tent": ["*[Nn]orm*"], "self_training": ["*"]}[objective]
  assert protocol["ledger"]["passes_a_sample"] == {
    "forward_and_backward": 4,
    "forward": 2 + (objective == "self_training"),
  }
  with pytest.raises(ValueError, match="adapts the statistics of BatchNorm, but 'toy' has none"):
    tasks.make("ttt", objective="norm", **options).run(network(), data, mesh_of(1), KEY)


@pytest.mark.parametrize("mode", ["standard", "online"])
def test_norm_adapts_statistics_which_a_stream_carries_and_a_stopped_run_keeps(mode, data, mesh_of, tmp_path):
  encoder = models.make("resnet8", normalize="signed")
  method = methods.make("supervised", encoder, DataSpec(100, 10, 8), head_scale=1.0)
  batch = {"image": jnp.zeros((2, 32, 32, 3)), "label": jnp.zeros(2, jnp.int32)}
  params, state, _ = jax.jit(method.init)(jax.random.key(1), batch)
  backbone = Backbone(jax.device_get(Weights(params, state)), method, {"backbone": "with BatchNorm"})
  task = tasks.make("ttt", mode=mode, steps=1, objective="norm", prior=3.0, **QUICK)
  kept = PartialResults(tmp_path / "it.npz")

  def stop_in_the_middle(done, total, loss):
    if done >= 14:
      os.kill(os.getpid(), signal.SIGINT)

  with pytest.raises(Stopped):
    task.run(backbone, data, mesh_of(1), KEY, progress=stop_in_the_middle, partial_results=kept)
  resumed = task.run(backbone, data, mesh_of(1), KEY, partial_results=kept)
  whole = task.run(backbone, data, mesh_of(8), KEY)
  assert resumed.scalars == whole.scalars and whole.scalars["adapted"] == 1
  losses = [found.protocol["losses"]["contrast"]["5"] for found in (resumed, whole)]
  np.testing.assert_allclose(*losses, rtol=1e-4)
  assert whole.protocol["ledger"]["passes_a_sample"] == {"forward_and_backward": 0, "forward": 6}


def test_networks_that_learn_nothing_are_refused(data, mesh_of):
  task = tasks.make("ttt", corruptions=SOME)
  with pytest.raises(
    ValueError,
    match="task 'ttt' needs .* Adaptable, which 'toy' does not have; .*: joint, .*mae_probe.*or set .*'memo'",
  ):
    task.run(without(Adaptable), data, mesh_of(1), KEY)
  with pytest.raises(ValueError, match="task 'ttt' needs .* Classifier, which 'toy' does not have"):
    task.run(without(Classifier), data, mesh_of(1), KEY)
  with pytest.raises(ValueError, match="no parameter is called 'trunk'"):
    tasks.make("ttt", trainable=("trunk",), corruptions=SOME).run(network(), data, mesh_of(1), KEY)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(mode="onlin"), "did you mean 'online'"),
    (dict(objective="tend"), "did you mean 'tent'"),
    (dict(prior=-2.0), "prior is -2.0; use 0 or more"),
    (dict(confidence=1.0), "confidence is 1.0; use a probability"),
    (dict(corruptions=("smog",)), "no corruption is called 'smog'"),
    (dict(severities=(6,)), "use some of 1 to 5"),
    (dict(together=-1), "together is -1"),
    (dict(learning_rate=0.0), "learning_rate is 0.0"),
    (dict(optimizer="lbfgs"), "optimizer is 'lbfgs'"),
    (dict(stepps=3), "stepps is unknown; did you mean 'steps'"),
  ],
)
def test_wrong_options_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    tasks.make("ttt", **options)
