"""The crops of transitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment
from ssl_jax.augment.transition_crop import observations, stacked

KEY = jax.random.key(0)
CLIP = np.random.default_rng(0).integers(0, 256, (64, 3, 12, 12, 3)).astype(np.uint8)
ACTION = np.arange(64, dtype=np.float32)[:, None]


def made(size: int, clip=CLIP):
  return jax.jit(augment.make("transition_crop", views=1, size=size))(KEY, {"clip": clip, "action": ACTION})


def test_crops_are_windows_at_the_offsets_that_are_told():
  found = made(8)
  for name, frames, which in (("observation", slice(0, 2), 0), ("next_observation", slice(1, 3), 1)):
    for row, (top, left) in enumerate(np.asarray(found["offsets"])[:, which]):
      window = CLIP[row, frames, top : top + 8, left : left + 8].astype(np.float32) / 255
      np.testing.assert_allclose(found[name][row], np.concatenate(list(window), -1), rtol=1e-6)
  np.testing.assert_array_equal(found["action"], ACTION)
  assert "clip" not in found


def test_the_two_observations_are_cropped_independently_at_0_to_3():
  offsets = np.asarray(made(8)["offsets"]).reshape(-1, 4)
  assert set(offsets.ravel()) == {0, 1, 2, 3}  # of 4 pixels of room, as in the released code
  assert abs(np.corrcoef(offsets.T)[np.triu_indices(4, 1)]).max() < 0.4
  assert not np.asarray(made(12)["offsets"]).any()


def test_frames_lie_behind_each_other_oldest_first():
  clip = jnp.arange(3, dtype=jnp.float32).reshape(3, 1, 1, 1) * jnp.ones((1, 2, 2, 3))
  before, after = observations(clip)
  assert before[0, 0].tolist() == [0, 0, 0, 1, 1, 1] and after[0, 0].tolist() == [1, 1, 1, 2, 2, 2]
  assert stacked(clip[None])[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_wrong_records_are_refused():
  with pytest.raises(ValueError, match="config.augment.size is 13, but the frames have 12 x 12 pixels"):
    made(13)
  with pytest.raises(ValueError, match="'transition_crop', which needs a 'clip', but .* only action"):
    augment.make("transition_crop", views=1, size=8)(KEY, {"action": ACTION})
