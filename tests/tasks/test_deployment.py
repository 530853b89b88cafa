"""Task deployment on a toy: pairing, the order of acting and learning, resuming, figures, options."""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment, methods, models, parallel, tasks, ttt
from ssl_jax.control.environment import Moment, Setup
from ssl_jax.core import DataSpec, Weights
from ssl_jax.data import host
from ssl_jax.run.stop import Stopped
from ssl_jax.tasks import deployment, deployment_episodes
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.deployment_episodes import Cell
from ssl_jax.tasks.partial_results import PartialResults
from ssl_jax.tasks.task import TaskData

SIDE, SIZE, LENGTH = 20, 16, 6
KEY = jax.random.key(3)


class Toys:
  """Environments whose state is a point: the picture shows a square there, an action moves it."""

  log: list[tuple[str, Any]] = []  # what was called, for tests of the order

  def __init__(self, setup: Setup, count: int, processes: int = 0):
    self.setup, self.actions = setup, 1

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass

  def reset(self, seeds, worlds):
    self._worlds = list(worlds)
    self._places = [np.random.default_rng(seed).uniform(-0.5, 0.5) for seed in seeds]
    self._moment, self._rewards = 0, [0.0] * len(worlds)
    Toys.log.append(("reset", list(seeds)))
    return self._tell()

  def step(self, actions):
    Toys.log.append(("step", np.array(actions)))
    self._places = [float(np.clip(p + 0.3 * a[0], -1, 1)) for p, a in zip(self._places, actions)]
    self._rewards = [1 - abs(p) for p in self._places]
    self._moment += 1
    return self._tell()

  def _tell(self):
    return [self._one(*row) for row in zip(self._worlds, self._places, self._rewards)]

  def _one(self, world, place, reward):
    frame = np.full((SIDE, SIDE, 3), 200 if world == "colours_hard" else 30, np.uint8)
    row = round((place + 1) / 2 * (SIDE - 4))
    frame[8:12, row : row + 4] = (250, 120, 10)
    expert = np.array([-place], np.float32)
    return Moment(frame, reward, expert, self._moment >= LENGTH, np.array([place]))


@pytest.fixture(autouse=True)
def toys(monkeypatch):
  monkeypatch.setattr(deployment, "Environments", Toys)
  monkeypatch.setattr(Toys, "log", [])


@functools.cache
def backbone(task: str = "inverse_dynamics") -> Backbone:
  elements = host.make("transition", host.Frame(SIDE)).elements
  encoder = models.make("pixel_encoder", depth=3, channels=4, features=6)
  method = methods.make(
    "policy", encoder, DataSpec(10, 0, 8, elements), task=task, branch="conv2", hidden=8, size=SIZE
  )
  batch = {name: np.zeros((8, *spec.shape), spec.dtype) for name, spec in elements.items()}
  params, state, _ = method.init(KEY, crop()(KEY, batch))
  params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(KEY, leaf.shape), params)
  return Backbone(Weights(params, state), method, {"backbone": "policy"})


@functools.cache
def crop():
  return augment.make("transition_crop", views=1, size=SIZE)


DATA = TaskData(
  lambda: iter(()),
  lambda: iter(()),
  0,
  augment=lambda *given: crop()(*given),
  protocol={"live_augment": {"name": "transition_crop"}},
)
WORLDS = ("train", "colours_hard")


@functools.cache
def mesh(devices: int = 1):
  return parallel.make_mesh(jax.devices()[:devices])


def run(*, task: str = "inverse_dynamics", devices: int = 1, **options):
  given = dict(worlds=WORLDS, episodes=3, copies=4, learning_rate=1e-2)
  partial = options.pop("partial_results", PartialResults())
  made = tasks.make("deployment", **{**given, **options})
  return made.run(backbone(task), DATA, mesh(devices), KEY, partial_results=partial)


def played(result) -> dict[str, Any]:
  return result.protocol["cells"]


def test_arms_are_paired_and_the_figures_add_up():
  result = run()
  resets = [seeds for what, seeds in Toys.log if what == "reset"]
  assert len(resets) == 2 * 3 * 3
  by_arm = [sum(resets[3 * i : 3 * i + 3], []) for i in range(6)]
  assert all(seeds == by_arm[0] for seeds in by_arm) and len(set(by_arm[0])) == 3
  cells, differences = played(result), result.protocol["differences"]
  for world in WORLDS:
    assert list(cells[world]) == ["frozen", "adapted", "shuffled"]
    gained = cells[world]["adapted"]["return"][0] - cells[world]["frozen"]["return"][0]
    assert differences[world]["adapted"]["return"][0] == pytest.approx(gained)
    low, high = differences[world]["adapted"]["return"][1:]
    assert low <= gained + 1e-9 and high >= gained - 1e-9
    frozen = cells[world]["frozen"]
    assert frozen["error"] == frozen["error_of_trained"]
    assert cells[world]["adapted"]["error"] != cells[world]["adapted"]["error_of_trained"]
  scalars = result.scalars
  assert scalars["score"] == scalars["score_adapted"]  # of the world that is not that of training
  assert scalars["score"] == pytest.approx(cells["colours_hard"]["adapted"]["return"][0] / 1000)
  assert set(result.protocol["ledger"]["milliseconds_a_step"]) == {"frozen", "adapted", "shuffled"}
  json.dumps({"scalars": scalars, "protocol": result.protocol})


def test_without_a_learning_rate_every_arm_does_what_the_frozen_one_does_bit_for_bit():
  result = run(learning_rate=0.0)
  for arms in played(result).values():
    for arm in ("adapted", "shuffled"):
      assert arms[arm]["return"] == arms["frozen"]["return"]
      assert arms[arm]["error"] == arms["frozen"]["error"]
  taken = [np.asarray(action) for what, action in Toys.log if what == "step"]
  frozen, adapted = (np.array(taken[i : i + 3 * LENGTH]) for i in (0, 3 * LENGTH))
  np.testing.assert_array_equal(frozen, adapted)
  assert np.array_equal(frozen, frozen) and len({a.tobytes() for a in frozen}) > 3


def test_an_episode_begins_with_the_trained_weights():
  """The first action is that of the frozen policy, and an episode does not depend on those before it."""
  run(episodes=2, worlds=("train",), arms=("frozen", "adapted"))
  actions = [np.asarray(action) for what, action in Toys.log if what == "step"]
  frozen, adapted = np.array(actions[: 2 * LENGTH]), np.array(actions[2 * LENGTH :])
  for first in (0, LENGTH):
    np.testing.assert_array_equal(frozen[first], adapted[first])
    assert (frozen[first + 1 : first + LENGTH] != adapted[first + 1 : first + LENGTH]).any()
  Toys.log.clear()
  run(episodes=1, worlds=("train",), arms=("frozen", "adapted"))
  alone = [np.asarray(action) for what, action in Toys.log if what == "step"][LENGTH:]
  np.testing.assert_array_equal(alone, adapted[:LENGTH])


def fake_programs(calls: list):
  """Programs that note what they are given; their action is the number of the call."""

  def respond(weights, state, sample, number):
    calls.append(("learn", sample["clip"], sample["action"], int(number[0])))
    action = jnp.full((1, 1), len(calls) / 10)
    return "state", ttt.episode.Response(action, action, jnp.zeros(1), jnp.zeros(1, bool))

  def begin(weights, trainable, key, sample, number):
    calls.append(("begin", sample["clip"], sample["action"], -1))
    action = jnp.full((1, 1), 0.05)
    return "state", ttt.episode.Response(action, action, jnp.zeros(1), jnp.zeros(1, bool))

  given: Any = (None, None, None)
  nothing: Any = None
  return deployment_episodes.Programs(begin, respond, nothing, given, 1, 1, mesh())


def learned(arm: str) -> tuple[list, list]:
  """(What the network was given, the actions of the environment) in one episode."""
  calls: list = []
  deployment_episodes.play(fake_programs(calls), Toys(Setup(), 1), [Cell("train", arm, 0)], 0, 3)
  plain = [(what, np.asarray(clip)[0], np.asarray(action)[0], number) for what, clip, action, number in calls]
  return plain, [np.asarray(action)[0] for what, action in Toys.log if what == "step"]


def test_the_action_is_taken_before_the_update_that_uses_it():
  calls, done = learned("adapted")
  assert [what for what, *_ in calls] == ["begin", *["learn"] * (LENGTH - 1)]
  assert len(done) == LENGTH and not calls[0][2].any()
  for moment, (_, clip, action, number) in enumerate(calls[1:]):
    assert number == moment
    np.testing.assert_array_equal(action, done[moment])  # the action that led to the last frame
    np.testing.assert_array_equal(clip[:-1], calls[moment][1][1:])  # the transition after the one before
  expected = [0.05, *[(moment + 2) / 10 for moment in range(LENGTH - 1)]]
  np.testing.assert_allclose(np.ravel(done), expected, rtol=1e-6)  # each answer is done at once


def test_shuffled_actions_are_others_of_the_same_episode():
  calls, done = learned("shuffled")
  told, true = np.ravel([call[2] for call in calls[1:]]), np.ravel(done[:-1])
  assert set(told) <= set(true) and (told != true).any()
  for moment, action in enumerate(told):
    assert action in true[: moment + 1]


@pytest.mark.parametrize("devices, together", [(1, 2), (4, 1)])
def test_episodes_side_by_side_are_those_one_after_the_other(devices, together):
  one, other = run(), run(devices=devices, together=together)
  for world in WORLDS:
    for arm in ("frozen", "adapted", "shuffled"):
      np.testing.assert_allclose(
        played(one)[world][arm]["error"], played(other)[world][arm]["error"], rtol=2e-3, atol=1e-6
      )


def test_an_interrupted_evaluation_goes_on(tmp_path, monkeypatch):
  whole, path = run(), tmp_path / "partial.npz"
  polls = iter([""] * 4 + ["SIGTERM"] + [""] * 100)
  monkeypatch.setattr(deployment.Stop, "poll", lambda self: next(polls))
  with pytest.raises(Stopped, match="stopped by SIGTERM after 5 of 18 episodes; run the same command"):
    run(partial_results=PartialResults(path))
  Toys.log.clear()
  resumed = run(partial_results=PartialResults(path))
  assert sum(what == "reset" for what, _ in Toys.log) == 13
  assert played(resumed) == played(whole) and resumed.scalars == whole.scalars
  assert not path.exists()


def test_other_options_do_not_use_the_partial_results(tmp_path, monkeypatch):
  path = tmp_path / "partial.npz"
  monkeypatch.setattr(deployment.Stop, "poll", lambda self: "SIGTERM")
  with pytest.raises(Stopped, match="after 1 of 18"):
    run(partial_results=PartialResults(path))
  with pytest.raises(Stopped, match="after 1 of 18"):
    run(partial_results=PartialResults(path), copies=5)


def test_rotation_has_no_control_of_actions():
  result = run(task="rotation", episodes=1, worlds=("train",))
  assert list(played(result)["train"]) == ["frozen", "adapted"]
  with pytest.raises(ValueError, match="arms has 'shuffled', but the task of this network does not use"):
    run(task="rotation", arms=("frozen", "shuffled"))


def test_films_and_pictures_are_drawn(tmp_path):
  result = run(episodes=1)
  assert result.plot is not None
  result.plot(tmp_path / "deployment-policy", "deployment")
  from PIL import Image

  with Image.open(tmp_path / "deployment-policy.gif") as film:
    assert film.size == (3 * 144, 2 * 164)
    assert getattr(film, "n_frames", 1) in (2, 3)  # of three frames; equal ones are joined
  assert (tmp_path / "deployment-policy.png").exists()
  assert (tmp_path / "deployment-policy-strip.png").exists()


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(worlds=("night",)), "worlds has 'night'.*known: camera, colours_easy"),
    (dict(worlds=("video",)), "the world 'video' needs a folder of clips"),
    (dict(arms=("adapted",)), "compared with 'frozen', add it"),
    (dict(arms=("frozen", "frozen")), "name each of them once"),
    (dict(learning_rate=-1.0), "learning_rate is -1.0; use 0 or a positive"),
    (dict(episodes=0), "episodes is 0; use 1 or more"),
    (dict(environment="cartpole"), "use DOMAIN/TASK"),
  ],
)
def test_wrong_options_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    tasks.make("deployment", **options)


def test_networks_and_augmentations_that_do_not_fit_are_refused(monkeypatch):
  made = tasks.make("deployment")
  plain = backbone()._replace(method=backbone().method._replace(abilities={}))
  with pytest.raises(methods.MissingAbility, match="the ability Actor.*methods with it: policy"):
    made.run(plain, DATA, mesh(), KEY)
  other = DATA._replace(protocol={"live_augment": {"name": "supervised"}})
  with pytest.raises(ValueError, match="config.augment.name is 'supervised'; use 'transition_crop'"):
    made.run(backbone(), other, mesh(), KEY)
  with pytest.raises(
    ValueError, match="of 'cartpole/swingup' has 2 numbers, but the policy was trained on 1"
  ):
    monkeypatch.setattr(deployment, "Environments", type("Two", (Toys,), {"actions": 2, "__init__": _two}))
    run()


def _two(self, setup, count, processes=0):
  self.actions = 2
