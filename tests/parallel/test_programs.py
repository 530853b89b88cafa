"""The bound on compiled programs."""

import sys

import jax
import jax.numpy as jnp
import pytest

from ssl_jax import parallel
from ssl_jax.parallel.programs import memory_maps


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the number of memory maps")
def test_programs_are_freed_above_the_bound_only():
  double = jax.jit(lambda x: 2 * x)
  double(jnp.ones(3))
  assert 0 < memory_maps() < 65_530
  assert not parallel.bound_programs(most=10**9) and double._cache_size() == 1
  assert parallel.bound_programs(most=1) and double._cache_size() == 0
  assert double(jnp.ones(3)).tolist() == [2, 2, 2]
