"""The host transform of transitions."""

import numpy as np
import pytest

from ssl_jax.data import host
from ssl_jax.mining.miner import encode_png

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 10, 10, 3)).astype(np.uint8)
RECORD = {
  "frames": [encode_png(frame) for frame in FRAMES],
  "action": np.array([0.5, -1], np.float32),
  "expert_action": np.array([0.25, 1], np.float32),
}


def transform(**options):
  return host.make("transition", host.Frame(10), **{**dict(frames=3, actions=2), **options})


def test_frames_and_actions_are_those_of_the_record():
  made = transform()(None, RECORD)
  np.testing.assert_array_equal(made["clip"], FRAMES)
  np.testing.assert_array_equal(made["action"], RECORD["action"])
  np.testing.assert_array_equal(made["expert_action"], RECORD["expert_action"])
  assert {name: np.shape(leaf) for name, leaf in made.items()} == {
    name: spec.shape for name, spec in transform().elements.items()
  }


def test_records_of_another_number_of_frames_or_actions_are_refused():
  with pytest.raises(ValueError, match="has 4 frames, but config.host.frames is 2; use 3"):
    transform(frames=2)(None, RECORD)
  with pytest.raises(ValueError, match="has 2 numbers, but config.host.actions is 1; use 2"):
    transform(actions=1)(None, RECORD)
  with pytest.raises(ValueError, match="config.host.actions is 0; use a positive number"):
    transform(actions=0)
