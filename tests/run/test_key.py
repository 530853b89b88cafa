"""The key of a run keeps its implementation when the run is resumed under another default of JAX."""

import shutil

import jax
import numpy as np
import pytest

from ssl_jax.run import digests
from ssl_jax.run.train import train
from tests.run.test_restore import mae, one_device  # noqa: F401

OLD = "threefry2x32"


def leaves(state) -> list[np.ndarray]:
  return jax.device_get(jax.tree.leaves(state.replace(key=jax.random.key_data(state.key))))


@pytest.mark.parametrize("first, then", [("rbg", "rbg"), ("rbg", OLD), (OLD, "rbg")])
def test_a_run_resumes_bit_identical_under_any_default(first, then, tmp_path):
  with jax.default_prng_impl(first):
    whole = train(mae(), tmp_path / "whole")
  shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
  shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "step_8")
  if first == OLD:  # as in checkpoints of older versions
    step = tmp_path / "resumed" / "checkpoints" / "step_4"
    item = step / "config" / "metadata"
    assert '"key_implementation"' in item.read_text()
    item.write_text(item.read_text().replace('"key_implementation"', '"another"'))
    digests.write_digests(step)
  with jax.default_prng_impl(then):
    resumed = train(mae(), tmp_path / "resumed")
  assert str(jax.random.key_impl(resumed.key)) == first
  for a, b in zip(leaves(resumed), leaves(whole), strict=True):
    np.testing.assert_array_equal(a, b)
