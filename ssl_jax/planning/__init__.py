"""Predicts memory and time of a run on chips that are not present, by compiling its programs for them."""

from ssl_jax.planning.plan import plan
from ssl_jax.planning.topology import open_topology
from ssl_jax.planning.write import write

__all__ = ["open_topology", "plan", "write"]
