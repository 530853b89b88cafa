"""The parts that named scopes take of a program compiled for a chip that is not present."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssl_jax.planning import open_topology
from ssl_jax.planning.hlo import cost
from ssl_jax.planning.scopes import parts
from ssl_jax.planning.topology import quiet
from ssl_jax.planning.traffic import traffic

ROWS, WIDTH, TRIPS = 4096, 512, 5


@pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu, the TPU's compiler, is not installed: extra `tpu`",
)
def test_scopes_take_the_work_of_their_operations_and_of_their_gradients():
  def work(x, y, steps):
    with jax.named_scope("outer"):
      x = jnp.tanh(x @ y)
      with jax.named_scope("looped"):
        x = jax.lax.fori_loop(0, TRIPS, lambda _, z: jnp.tanh(z @ y), x)
    return (jnp.tanh(x) @ steps).sum()

  chip, mesh = open_topology("v5e:2x2")
  alone = NamedSharding(Mesh(mesh.devices.reshape(-1)[:1], ("data",)), PartitionSpec())
  matrix = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=alone)
  arguments = matrix(ROWS, WIDTH), matrix(WIDTH, WIDTH), matrix(WIDTH, WIDTH)
  with quiet():
    text = jax.jit(jax.grad(work, argnums=(0, 1))).lower(*arguments).compile().as_text()
  found = parts(text, ("outer", "looped", "absent"), chip)
  product = 2 * ROWS * WIDTH**2
  assert found["looped"].flops == pytest.approx(3 * TRIPS * product, rel=0.05)
  assert found["outer"].flops == pytest.approx(3 * (TRIPS + 1) * product, rel=0.05)
  assert found["all"].flops == pytest.approx(cost(text).flops, rel=0.01)
  assert found["all"].hbm_bytes == traffic(text) > found["outer"].hbm_bytes > 0
  for part in (found["all"], found["looped"]):
    assert part.seconds >= max(part.flops / chip.flops, part.hbm_bytes / chip.bandwidth)
  assert found["looped"].instructions >= 2 * TRIPS and not any(found["absent"])
  assert found["all"].largest >= 2 * ROWS * WIDTH
