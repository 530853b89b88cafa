"""What a run needs and costs on chips that are not there: its real programs, compiled for them on this machine."""

from ssl_jax.planning.plan import plan
from ssl_jax.planning.topology import open_topology
from ssl_jax.planning.write import write

__all__ = ["open_topology", "plan", "write"]
