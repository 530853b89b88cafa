"""Recorded trajectories: processes, records, reading them back, the rounds of DAgger, bad options."""

import json

import numpy as np
import pytest

from ssl_jax.control import trajectories
from ssl_jax.control.environment import Setup
from ssl_jax.control.frame_stack import FrameStack
from ssl_jax.control.trajectories import Recording
from ssl_jax.control.workers import Environments
from ssl_jax.data import host, sources
from ssl_jax.run import prepare

SHORT = Setup(size=24, repeat=100)  # ten actions an episode


def recording(**options) -> Recording:
  return Recording(
    **{**dict(setup=SHORT, episodes=3, test_episodes=1, frames=2, noise=0.5, together=2, seed=0), **options}
  )


@pytest.fixture(scope="module")
def recorded(simulator, tmp_path_factory):
  output = tmp_path_factory.mktemp("recorded")
  trajectories.record(recording(), output)
  return output


def test_a_stack_begins_with_copies_and_forgets_the_oldest():
  images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1).repeat(3, -1)
  stack = FrameStack(images[0], 2)
  assert stack.clip[:, 0, 0, 0].tolist() == [0, 0, 0]
  for image in images[1:]:
    stack.add(image)
  assert stack.clip[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_processes_give_what_one_process_gives(simulator):
  actions = np.array([[0.3], [-0.5], [1.0]])
  found = []
  for processes in (0, 2):
    with Environments(Setup(size=16), 3, processes) as environments:
      assert environments.actions == 1
      environments.reset([4, 5, 6], ["train", "colours_hard", "camera"])
      found.append([environments.step(actions) for _ in range(2)][-1])
  for one, other in zip(*found):
    np.testing.assert_array_equal(one.frame, other.frame)
    np.testing.assert_array_equal(one.state, other.state)


def test_an_error_in_a_process_reaches_this_one(simulator):
  with pytest.raises(ValueError, match="DeepMind Control has none of this name"):
    Environments(Setup("cartpole/jump", size=16), 2, 2)


def test_records_are_transitions(recorded):
  source = sources.make(trajectories.NAME, split="train", data_dir=str(recorded))
  assert len(source) == 3 * SHORT.steps and {"frames", "action", "expert_action"} <= set(source.fields)
  transform = host.make("transition", host.Frame(24), frames=2, actions=1)
  host.check_source("transition", transform, source)
  rows = [transform(None, source[i]) for i in range(SHORT.steps)]
  np.testing.assert_array_equal(rows[0]["clip"][0], rows[0]["clip"][1])  # the episode begins with copies
  for before, after in zip(rows, rows[1:]):
    np.testing.assert_array_equal(before["clip"][1:], after["clip"][:-1])
  assert (rows[3]["clip"][1] != rows[3]["clip"][2]).any()
  assert source[3]["numbers"].tolist() == [2, 3, 4]
  assert source[3]["clip_name"].startswith("cartpole/swingup/train/")


def test_noise_is_added_to_what_is_done_and_not_to_what_the_expert_says(recorded):
  source = sources.make(trajectories.NAME, split="train", data_dir=str(recorded))
  done, advised = (
    np.array([source[i][name] for i in range(len(source))]) for name in ("action", "expert_action")
  )
  assert 0.2 < np.abs(done - advised).mean() < 0.6
  assert np.abs(done).max() <= 1


def test_splits_share_no_seed_and_statistics_are_complete(recorded):
  statistics = json.loads((recorded / trajectories.NAME / "statistics.json").read_text())
  assert statistics["records"] == {"train": 3 * SHORT.steps, "test": SHORT.steps}
  assert statistics["repeat"] == 100 and len(statistics["returns"]["train"]) == 3
  seeds = [set(recording(seed=seed).seeds(split)) for seed in (0, 1) for split in ("train", "test")]
  assert len(set.union(*seeds)) == sum(map(len, seeds))
  assert (recorded / trajectories.NAME / "sheet.png").exists()


def test_a_round_of_dagger_keeps_the_old_records_and_lets_the_policy_act(recorded, tmp_path):
  seen = []

  def policy(clips):
    seen.append(clips)
    return np.full((len(clips), 1), -1.0, np.float32)

  trajectories.record(
    recording(noise=0.0, seed=1, episodes=1), tmp_path, policy=policy, earlier=str(recorded)
  )
  source = sources.make(trajectories.NAME, split="train", data_dir=str(tmp_path))
  old = sources.make(trajectories.NAME, split="train", data_dir=str(recorded))
  assert len(source) == len(old) + SHORT.steps
  assert source[5]["frames"] == old[5]["frames"] and source[5]["clip_name"] == old[5]["clip_name"]
  new = [source[len(old) + i] for i in range(SHORT.steps)]
  assert all(record["action"].item() == -1 for record in new)
  assert any(record["expert_action"].item() > -0.9 for record in new)
  assert seen[0].shape == (2, 3, 24, 24, 3) or seen[0].shape == (1, 3, 24, 24, 3)


def test_a_finished_data_set_is_not_written_again(recorded):
  with pytest.raises(ValueError, match="exists already; use another --output"):
    trajectories.record(recording(), recorded)


@pytest.mark.parametrize(
  "words, message",
  [
    (["episodes=0"], "episodes=0; use 1 or more"),
    (["noise=-1"], "noise=-1.0; use a standard deviation"),
    (["epsiodes=3"], "trajectories.epsiodes is unknown; did you mean 'episodes'"),
    (["environment=walker/walk"], "no expert for 'walker/walk'"),
    (["size"], "'size' is not an option; write OPTION=VALUE"),
  ],
)
def test_wrong_options_are_refused_before_anything_is_simulated(words, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    prepare.record(words, str(tmp_path))
