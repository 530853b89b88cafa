"""Settings of the whole suite: eight simulated devices, strict promotion, warnings as errors, bounded memory.

Tests that share compiled programs form a group and run in one worker, one group after the other: a module is
a group, and so are the conformance tests of one method. The programs that a module compiled are freed at its
end, because Linux allows a process 65,530 memory maps, and compiled programs would accumulate towards that
limit.
"""

import contextlib
import ctypes
import functools
import gc
import os
import pathlib

# The tests compile hundreds of small programs and run each a few times: without LLVM's optimisation the
# compilation takes half the time.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TFDS_DISABLE_PROGRESS", "1")
# Programs that another worker, a subprocess of a test or an earlier run has compiled are loaded from the
# disk: a second run takes half the time.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache" / "ssl_jax" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import pytest  # noqa: E402

from ssl_jax import methods  # noqa: E402
from ssl_jax.parallel.programs import memory_maps  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
# Limits for a worker. The target is 3 GiB, and the largest module, tests/convert, took up to 2.9.
MOST_MAPS, MOST_BYTES = 20_000, 3.5 * 2**30


def group_of(nodeid: str) -> str:
  """The tests that share compiled programs with this one: those of its module, or of its method."""
  module, _, test = nodeid.partition("::")
  given = test.partition("[")[2].rstrip("]").split("-")
  names = set(given) & set(methods.known()) if module.endswith("tests/test_methods.py") else set()
  return f"{module}{sorted(names)}"


def pytest_collection_modifyitems(items):
  """Sorts the tests of a group behind each other."""
  first = {}
  for number, item in enumerate(items):
    first.setdefault(group_of(item.nodeid), number)
  items.sort(key=lambda item: first[group_of(item.nodeid)])  # stable: keeps the order within a group


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """With `--dist loadgroup` the tests of a group run in one worker.

  The marks of pytest-xdist 3.8 have no effect with pytest 9.2, in which a test's id cannot be changed.
  """
  if config.getvalue("dist") != "loadgroup":
    return None
  from xdist.scheduler import LoadScopeScheduling

  class ByGroup(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
      return group_of(nodeid)

  return ByGroup(config, log)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """The folder of real images beside the checkout; tests that need it are skipped if it does not exist."""
  if not SHARED_DATA.is_dir():
    place = SHARED_DATA.relative_to(REPOSITORY.parent)
    pytest.skip(f"no folder of real images at {place} beside the checkout")
  return SHARED_DATA


@pytest.fixture(scope="session")
def simulator():
  """Skips without the simulator of environments, or without a library to render with."""
  for module in ("mujoco", "dm_control"):
    pytest.importorskip(module, reason=f"{module} is not installed: extra `control`")
  from ssl_jax.control.environment import Environment, Setup

  try:
    Environment(Setup(size=16)).close()
  except ImportError as error:
    pytest.skip(str(error))


@pytest.fixture(autouse=True, scope="module")
def bounded_memory(request):
  """Fails if a module needs more memory or memory maps than a worker may; gives back what it compiled."""
  return_freed_memory()
  reset_peak()
  yield
  name, maps, peak = request.module.__name__, memory_maps(), peak_bytes()
  for value in vars(request.module).values():
    if isinstance(value, functools._lru_cache_wrapper) and value.__module__ == name:
      value.cache_clear()
  jax.clear_caches()
  gc.collect()
  if report := os.environ.get("SSL_JAX_TEST_MEMORY"):  # a file that gets a line for each module
    with open(report, "a") as file:
      file.write(f"{maps:6} maps {peak / 2**30:5.2f} GiB {name}\n")
  assert maps <= MOST_MAPS, f"{maps} memory maps at the end of {name}; {MOST_MAPS} are allowed"
  assert peak <= MOST_BYTES, f"{name} took up to {peak / 2**30:.2f} GiB; 3.5 are allowed"


def return_freed_memory() -> None:
  """Makes glibc return freed memory to the system; it would count in the peak of the next module."""
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_bytes() -> int:
  """The largest resident size since `reset_peak`; 0 where the system does not tell."""
  path = pathlib.Path("/proc/self/status")
  lines = path.read_text().splitlines() if path.exists() else []
  return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def reset_peak() -> None:
  """Makes the present resident size the peak, on Linux."""
  with contextlib.suppress(OSError):
    pathlib.Path("/proc/self/clear_refs").write_text("5")
