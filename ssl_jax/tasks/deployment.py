"""A policy at deployment: it acts in worlds that look unlike those of its training, and learns on the way."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import optax
from jax.sharding import Mesh

from ssl_jax import parallel, ttt
from ssl_jax.abilities import Actor, Adaptable
from ssl_jax.config.checked import nearest
from ssl_jax.control.environment import Setup
from ssl_jax.control.workers import Environments
from ssl_jax.control.worlds import WORLDS, check_world
from ssl_jax.core import Augment, Key
from ssl_jax.parallel import placement
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.tasks import deployment_report, streams
from ssl_jax.tasks.backbone import Backbone, digest
from ssl_jax.tasks.deployment_episodes import ARMS, FROZEN, SHUFFLED, Cell, Played, Programs, play
from ssl_jax.tasks.deployment_rows import EpisodeRows
from ssl_jax.tasks.partial_results import NOTHING_KEPT, PartialResults
from ssl_jax.tasks.task import Result, Task, TaskData, silent
from ssl_jax.tasks.ttt import make_rule


class Options(NamedTuple):
  """The options of the task, see `make`."""

  environment: str
  worlds: tuple[str, ...]
  arms: tuple[str, ...]
  episodes: int
  steps: int
  copies: int
  learning_rate: float
  repeat: int
  expert: str
  videos: str
  camera: int
  trainable: tuple[str, ...]
  together: int
  processes: int

  def setup(self, size: int) -> Setup:
    """The environment, in frames of `size` pixels."""
    return Setup(self.environment, size, self.repeat, self.expert, self.videos, self.camera)


def make(
  *,
  environment: str = "cartpole/swingup",
  worlds: tuple[str, ...] = ("train", "colours_easy", "colours_hard", "camera"),
  arms: tuple[str, ...] = (),
  episodes: int = 20,
  steps: int = 1,
  copies: int = 32,
  learning_rate: float = 1e-3,
  repeat: int = 0,
  expert: str = "",
  videos: str = "",
  camera: int = 0,
  trainable: tuple[str, ...] = (),
  together: int = 0,
  processes: int = 0,
) -> Task:
  """Measures the returns of a policy with and without learning during its episodes.

  In every world the arms play the same episodes: the same first states and the same looks. Each episode
  begins with the trained weights and a fresh optimiser. After each action the network learns from the
  transition that it caused, and from no other; then it acts again.

  Arms: "frozen": the network stays as trained. "adapted": it learns its own task. "shuffled": the control: it
  learns the same, but from actions drawn at random among those of the episode so far, so that the task can
  teach nothing about what the actions do.

  Beside returns it measures the squared error to the expert's action in the states that the arm reaches; and,
  in the same states, that of the trained network, so that both errors are of the same frames.

  Args:
    environment, repeat, expert, camera: see `run.prepare.record_trajectories`; those of the training.
    worlds: some of "train", "colours_easy", "colours_hard", "video", "camera", see control/worlds.py.
    arms: (): all that apply; "shuffled" needs a task that uses actions.
    episodes: in each world, for each arm.
    steps: of the optimiser at each transition.
    copies: of the transition in a step, each cropped at random by config.augment.
    learning_rate: of Adam, whose state lives through an episode; 0: nothing changes.
    videos: folder of clips for the world "video".
    trainable: which parameters adapt, see `ttt.select_params`; (): the choice of the method.
    together: episodes at once on a device; 0: as many as suit the platform and the network. It does not
      change the results beyond rounding.
    processes: that simulate and render; 0: this one does.
  Raises: ValueError for options out of range; in `run`, methods.MissingAbility if the network is no policy,
    and ImportError without the simulator.
  Source: Hansen et al. 2021, sections 3.2 and 4, and released code; the error to an expert is ours.
  """
  options = Options(**{name: value for name, value in locals().items() if name in Options._fields})
  _check(options)
  return Task("deployment", functools.partial(_run, options), resumes=True)


def _run(
  options: Options,
  backbone: Backbone,
  data: TaskData,
  mesh: Mesh,
  key: Key,
  *,
  extract=None,
  progress=silent,
  partial_results: PartialResults = NOTHING_KEPT,
) -> Result:
  actor = backbone.ability(Actor, "task 'deployment'", "train a 'policy'")
  adaptable = backbone.ability(Adaptable, "task 'deployment'", "train a 'policy'")
  augment = _augment_of(data)
  arms = _arms(options, actor)
  setup = options.setup(actor.size).check()
  seed = streams.seed_of(key)
  cells = [
    Cell(world, arm, number) for world in options.worlds for number in range(options.episodes) for arm in arms
  ]
  programs = _programs(options, backbone, augment, mesh, key)
  protocol = _protocol(options, arms, adaptable, backbone, data, setup)
  identity = {**protocol, "weights": digest(backbone), "seed": seed, "together": programs.size}
  rows = EpisodeRows(partial_results, identity)
  with Environments(setup, programs.size, options.processes) as environments, Stop() as stop:
    _check_actions(environments.actions, actor, options)
    for batch in _batches(cells, rows, programs.size):
      played = play(programs, environments, batch, seed, actor.frames)
      for cell, found in zip(batch, played):
        rows.add(cell, found)
      progress(len(rows), len(cells), _told(batch[-1], played[-1]))
      stopped = stop.poll()
      rows.save()
      if stopped:
        raise Stopped(
          f"stopped by {stopped} after {len(rows)} of {len(cells)} episodes; run the same command again to "
          "resume"
        )
  partial_results.clear()
  scalars, details = deployment_report.report(rows, options.worlds, arms)
  details["ledger"] = {
    "milliseconds_a_step": rows.milliseconds(),
    "episodes_at_once": programs.size,
    "bytes_a_device": programs.memory(),
  }
  plot = functools.partial(deployment_report.plot, rows, details, options.worlds, arms)
  return Result(scalars, {**protocol, **details}, plot=plot)


def make_learner(
  options: Options, backbone: Backbone, augment: Augment
) -> tuple[ttt.Adapt, ttt.Episode, Actor]:
  """Returns (the inner loop, the functions of an episode, the policy)."""
  actor = backbone.ability(Actor, "task 'deployment'", "train a 'policy'")
  adaptable = backbone.ability(Adaptable, "task 'deployment'", "train a 'policy'")
  # Adam's rule with rate 1, scaled afterwards, so that a rate of 0 is possible.
  adam = make_rule("adamw", learning_rate=1.0, momentum=0.9, weight_decay=0.0)
  rule = optax.chain(adam, optax.scale(options.learning_rate))
  steps = options.steps * options.setup(actor.size).steps
  adapt = ttt.make_adapt(adaptable, augment, rule, steps=steps, copies=options.copies)
  return adapt, ttt.make_episode(adapt, adaptable, actor, updates=options.steps), actor


def _programs(options: Options, backbone: Backbone, augment: Augment, mesh: Mesh, key: Key) -> Programs:
  """The compiled programs, and the weights on the devices."""
  adapt, episode, actor = make_learner(options, backbone, augment)
  weights, first = ttt.initial_params(backbone, options.trainable)
  together = options.together or ttt.images_at_once(adapt, first)
  cells = len(options.worlds) * options.episodes
  together = max(1, min(together, -(-cells // mesh.size)))
  parallel.bound_programs()
  given = placement.replicate((weights, first, key), mesh)
  return Programs.compiled(episode, given, mesh, together, actor.actions)


def _batches(cells: list[Cell], rows: EpisodeRows, size: int):
  """The cells that have no row yet, several of one world and arm at a time."""
  for world, arm in dict.fromkeys((cell.world, cell.arm) for cell in cells):
    missing = [cell for cell in cells if cell[:2] == (world, arm) and cell not in rows]
    for first in range(0, len(missing), size):
      yield missing[first : first + size]


def _told(cell: Cell, played: Played) -> str:
  return f"{cell.world}, {cell.arm}: return {played.reward:.0f}"


def _arms(options: Options, actor: Actor) -> tuple[str, ...]:
  """The arms to play. Raises ValueError for a control that the task of the network does not have."""
  if not options.arms:
    return ARMS if actor.learns_actions else tuple(arm for arm in ARMS if arm != SHUFFLED)
  if SHUFFLED in options.arms and not actor.learns_actions:
    raise ValueError(
      f"config.tasks.deployment.arms has {SHUFFLED!r}, but the task of this network does not use actions; "
      "leave it out, or train with config.method.task='inverse_dynamics'"
    )
  return options.arms


def _check(options: Options) -> None:
  where = "config.tasks.deployment"
  for name, least in (("episodes", 1), ("steps", 1), ("copies", 1), ("together", 0), ("processes", 0)):
    if getattr(options, name) < least:
      raise ValueError(f"{where}.{name} is {getattr(options, name)}; use {least} or more")
  if options.learning_rate < 0:
    raise ValueError(f"{where}.learning_rate is {options.learning_rate}; use 0 or a positive number")
  for name, values, known in (("worlds", options.worlds, WORLDS), ("arms", options.arms, ARMS)):
    for value in values:
      if value not in known:
        raise ValueError(f"{where}.{name} has {value!r}{nearest(value, known)}")
    if len(set(values)) < len(values) or (name == "worlds" and not values):
      raise ValueError(f"{where}.{name} is {values}; name each of them once")
  if options.arms and FROZEN not in options.arms:
    raise ValueError(f"{where}.arms is {options.arms}; the others are compared with {FROZEN!r}, add it")
  for world in options.worlds:
    check_world(world, options.videos)
  options.setup(1).check()


def _augment_of(data: TaskData) -> Augment:
  """The crops of transitions. Raises ValueError if config.augment is another augmentation."""
  name = data.protocol.get("live_augment", {}).get("name")
  if name != "transition_crop" or data.augment is None:
    raise ValueError(
      f"task 'deployment' learns from crops of transitions, but config.augment.name is {name!r}; use "
      "'transition_crop'"
    )
  return data.augment


def _check_actions(count: int, actor: Actor, options: Options) -> None:
  if count != actor.actions:
    raise ValueError(
      f"an action of {options.environment!r} has {count} numbers, but the policy was trained on "
      f"{actor.actions}; set config.tasks.deployment.environment to that of its training"
    )


def _protocol(
  options: Options,
  arms: tuple[str, ...],
  adaptable: Adaptable,
  backbone: Backbone,
  data: TaskData,
  setup: Setup,
) -> dict[str, Any]:
  given = options._asdict()
  for name in ("together", "processes"):
    del given[name]
  return {
    **data.protocol,
    **backbone.protocol,
    **given,
    "task": "deployment",
    "worlds": list(options.worlds),
    "arms": list(arms),
    "trainable": list(options.trainable or adaptable.trainable),
    "repeat": setup.held,
    "size": setup.size,
    "optimizer": "adam",
    "backbone_mode": "evaluation",
  }
