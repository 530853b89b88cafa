"""Writes what an expert, or a policy that an expert corrects, does in an environment, as a data set."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.control import experts
from ssl_jax.control.environment import LENGTH, Setup
from ssl_jax.control.frame_stack import FrameStack
from ssl_jax.control.workers import Environments
from ssl_jax.data import sources
from ssl_jax.data.elements import Record
from ssl_jax.mining.miner import Row, encode_png
from ssl_jax.mining.sheet import draw_sheet
from ssl_jax.run.commit import running_commit

NAME = "trajectories"
SPLITS = ("train", "test")
_SEEDS = 10_000  # episodes of a split and seed at most
_EPISODES_SHOWN, _FRAMES_SHOWN = 8, 12  # on the picture sheet

# clips uint8[n, frames + 1, S, S, 3], oldest first -> actions f32[n, A] in [-1, 1]
Policy = Callable[[np.ndarray], np.ndarray]


class Recording(NamedTuple):
  """What is recorded; see `run.prepare.record_trajectories`."""

  setup: Setup
  episodes: int
  test_episodes: int
  frames: int
  noise: float
  together: int
  seed: int

  def check(self) -> Recording:
    """Returns itself. Raises ValueError for values out of range, or without an expert."""
    self.setup.check()
    experts.need_expert(self.setup.expert, self.setup.environment)
    for name, least in (("episodes", 1), ("test_episodes", 0), ("frames", 1), ("together", 1), ("seed", 0)):
      if getattr(self, name) < least:
        raise ValueError(f"{name}={getattr(self, name)}; use {least} or more")
    if max(self.episodes, self.test_episodes) > _SEEDS:
      raise ValueError(f"at most {_SEEDS} episodes of a split can be recorded under one seed")
    if self.noise < 0:
      raise ValueError(f"noise={self.noise}; use a standard deviation of 0 or more, such as 0.2")
    return self

  def seeds(self, split: str) -> list[int]:
    """The seeds of the episodes of a split: no two splits and seeds share one."""
    first = (2 * self.seed + SPLITS.index(split)) * _SEEDS
    return [first + number for number in range(self.episodes if split == "train" else self.test_episodes)]


class Episode(NamedTuple):
  """One recorded episode of T actions."""

  seed: int
  frames: list[bytes]  # T + 1 encoded pictures
  actions: np.ndarray  # f32[T, A]
  expert_actions: np.ndarray  # f32[T, A]
  reward: float


def record(
  recording: Recording,
  output: pathlib.Path,
  *,
  policy: Policy | None = None,
  earlier: str = "",
  processes: int = 0,
  about: Mapping[str, Any] | None = None,
  progress: Callable[[int, int, str], None] = lambda *_: None,
) -> pathlib.Path:
  """Rolls out episodes and writes OUTPUT/trajectories/1.0.0, with statistics.json and sheet.png beside it.

  A record is a transition: "frames", `frames` + 1 pictures, oldest first, that begin as copies of the first
  one; "action" f32[A], what was done, and "expert_action" f32[A], what the expert would have done, in
  [-1, 1]; "numbers" i32[frames + 1], those of the pictures in the episode.

  Args:
    policy: who acts; None: the expert. The noise is added to either.
    earlier: a folder with such a data set, whose records come first: DAgger's aggregation.
    about: further entries of statistics.json.
  Returns: the folder of the data set.
  Raises: ValueError for values out of range, or if the data set exists; ImportError without the simulator.
  Source: Ross, Gordon, Bagnell 2011 (DAgger).
  """
  from ssl_jax.mining import written_data  # here: importing TFDS takes half a second

  recording.check()
  finished = written_data.folder_of(output, NAME)
  if finished.exists():
    raise ValueError(f"the data set {finished} exists already; use another --output, or delete it")
  before = {split: _earlier(earlier, split) for split in SPLITS} if earlier else {}
  found = roll_out(recording, policy, processes, progress)
  episodes = {split: list(of_split) for split, of_split in found.items() if of_split}
  records = {
    split: functools.partial(_records, recording, split, of_split, before.get(split))
    for split, of_split in episodes.items()
  }
  actions = episodes["train"][0].actions.shape[1]
  statistics = _statistics(recording, episodes, earlier, about or {})
  home = output / NAME
  home.mkdir(parents=True, exist_ok=True)
  _draw(home / "sheet.png", recording, episodes["train"])
  told = {**statistics, "commit": running_commit()}
  (home / "statistics.json").write_text(json.dumps(told, indent=1) + "\n")
  text = "Transitions of an environment, recorded by `ssl-jax prepare trajectories`."
  written_data.write(output, NAME, _features(recording, actions), records, text)
  print(f"{finished}: {statistics['records']} transitions, mean return {statistics['mean_return']}")
  return finished


def roll_out(
  recording: Recording, policy: Policy | None, processes: int, progress: Callable[[int, int, str], None]
) -> dict[str, list[Episode]]:
  """The episodes of each split, several at a time."""
  jobs = [(split, seed) for split in SPLITS for seed in recording.seeds(split)]
  found: dict[str, list[Episode]] = {split: [] for split in SPLITS}
  with Environments(recording.setup, min(recording.together, len(jobs)), processes) as environments:
    for first in range(0, len(jobs), recording.together):
      batch = jobs[first : first + recording.together]
      made = _episodes(recording, environments, [seed for _, seed in batch], policy)
      for (split, _), episode in zip(batch, made):
        found[split].append(episode)
      mean = np.mean([episode.reward for episode in made])
      progress(min(first + len(batch), len(jobs)), len(jobs), f"return {mean:.0f}")
  return found


def _episodes(
  recording: Recording, environments: Environments, seeds: list[int], policy: Policy | None
) -> list[Episode]:
  moments = environments.reset(seeds, ["train"] * len(seeds))
  stacks = [FrameStack(moment.frame, recording.frames) for moment in moments]
  rngs = [np.random.default_rng(seed) for seed in seeds]
  pictures = [[encode_png(moment.frame)] for moment in moments]
  done, advised = [], []
  rewards = np.zeros(len(seeds))
  while not moments[0].last:
    advice = np.stack([moment.expert for moment in moments])
    wanted = advice if policy is None else policy(np.stack([stack.clip for stack in stacks]))
    noise = np.stack([rng.normal(size=advice.shape[1]) for rng in rngs])
    actions = (wanted + recording.noise * noise).clip(-1, 1).astype(np.float32)
    moments = environments.step(actions)
    for stack, shown, moment in zip(stacks, pictures, moments):
      stack.add(moment.frame)
      shown.append(encode_png(moment.frame))
    rewards += [moment.reward for moment in moments]
    done.append(actions)
    advised.append(advice)
    if len({moment.last for moment in moments}) > 1:
      raise ValueError("the episodes of an environment differ in length; record them with together=1")
  both = np.stack(done, 1), np.stack(advised, 1)
  return [Episode(*row) for row in zip(seeds, pictures, *both, rewards.tolist())]


def _records(
  recording: Recording, split: str, episodes: list[Episode], before: sources.Source | None
) -> Iterator[Record]:
  """The transitions of earlier recordings, then those of episodes."""
  for number in range(len(before) if before else 0):
    old = before[number]  # pyright: ignore[reportOptionalSubscript]
    kept = {name: old[name] for name in ("frames", "action", "expert_action", "numbers")}
    yield {**kept, "clip": old["clip_name"]}
  for episode in episodes:
    for moment, (action, advice) in enumerate(zip(episode.actions, episode.expert_actions)):
      numbers = np.maximum(np.arange(moment + 1 - recording.frames, moment + 2), 0)
      yield {
        "frames": [episode.frames[number] for number in numbers],
        "action": action,
        "expert_action": advice,
        "numbers": numbers.astype(np.int32),
        "clip": f"{recording.setup.environment}/{split}/{episode.seed}",
      }


def _features(recording: Recording, actions: int) -> dict[str, Any]:
  import tensorflow_datasets as tfds

  side, count = recording.setup.size, recording.frames + 1
  return {
    "frames": tfds.features.Sequence(
      tfds.features.Image(shape=(side, side, 3), encoding_format="png"), count
    ),
    "action": tfds.features.Tensor(shape=(actions,), dtype=np.float32),
    "expert_action": tfds.features.Tensor(shape=(actions,), dtype=np.float32),
    "numbers": tfds.features.Tensor(shape=(count,), dtype=np.int32),
  }


def _earlier(folder: str, split: str) -> sources.Source | None:
  """A split of an earlier recording; None if it has no such split."""
  try:
    return sources.make(NAME, split=split, data_dir=folder)
  except ValueError:
    if split == "train":
      raise
    return None


def _statistics(recording: Recording, episodes: dict[str, list[Episode]], earlier: str, about) -> dict:
  returns = {split: [round(e.reward, 3) for e in of_split] for split, of_split in episodes.items()}
  return {
    **recording.setup._asdict(),
    "repeat": recording.setup.held,
    **{name: getattr(recording, name) for name in ("frames", "noise", "seed")},
    **about,
    "earlier": earlier,
    "records": {split: sum(len(e.actions) for e in of_split) for split, of_split in episodes.items()},
    "mean_return": {split: round(float(np.mean(of_split)), 1) for split, of_split in returns.items()},
    "greatest_return": LENGTH,
    "returns": returns,
  }


def _draw(path: pathlib.Path, recording: Recording, episodes: list[Episode]) -> None:
  """Draws frames of some episodes, a row for each."""
  from ssl_jax.data.decode import decode

  rows = []
  for episode in episodes[:_EPISODES_SHOWN]:
    places = np.linspace(0, len(episode.frames) - 1, _FRAMES_SHOWN).round().astype(int)
    shown = [decode(episode.frames[place]) for place in places]
    rows.append(Row(f"seed {episode.seed}: return {episode.reward:.0f}", shown))
  draw_sheet(path, rows, f"{recording.setup.environment}: frames of episodes")
