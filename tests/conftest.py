"""Eight simulated devices, strict promotion, warnings as errors: what the whole suite runs under."""

import os
import pathlib

# Hundreds of small programs, each run a few times: without LLVM's optimisation they compile in half the time.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
  " --xla_backend_optimization_level=0"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TFDS_DISABLE_PROGRESS", "1")
# What was compiled once, by a test beside, by a process of a test, or by the run before, is loaded: a second run takes half the time.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache" / "ssl_jax" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """The folder of real images beside the checkout; a test that needs it is skipped where it is absent."""
  if not SHARED_DATA.is_dir():
    pytest.skip(
      f"no folder of real images at {SHARED_DATA.relative_to(REPOSITORY.parent)} beside the checkout"
    )
  return SHARED_DATA
