"""The accelerators that a plan can be made for, with the published figures of one chip."""

from __future__ import annotations

from typing import NamedTuple

GIB, TERA = 2**30, 10**12


class Chip(NamedTuple):
  """Peak figures of one chip."""

  flops: float  # per second: bfloat16 with float32 accumulation, dense
  memory: int  # bytes
  bandwidth: float  # bytes per second, to and from that memory
  source: str
  platform: str = "tpu"
  share: float = 0.98  # the fraction of the memory that a program may use


def _gpu(flops: float, memory: int, bandwidth: float, source: str) -> Chip:
  # jax uses 0.75 of the memory of a GPU unless XLA_PYTHON_CLIENT_MEM_FRACTION tells otherwise.
  return Chip(flops, memory, bandwidth, source, "gpu", 0.75)


CHIPS = {
  "v4": Chip(275 * TERA, 32 * GIB, 1.228 * TERA, "Google Cloud TPU documentation, TPU v4"),
  "v5e": Chip(197 * TERA, 16 * GIB, 0.819 * TERA, "Google Cloud TPU documentation, TPU v5e"),
  "v5p": Chip(459 * TERA, 95 * GIB, 2.765 * TERA, "Google Cloud TPU documentation, TPU v5p"),
  "v6e": Chip(918 * TERA, 32 * GIB, 1.640 * TERA, "Google Cloud TPU documentation, TPU v6e"),
  "a100": _gpu(312 * TERA, 80 * GIB, 2.039 * TERA, "NVIDIA A100 80GB SXM data sheet"),
  "h100": _gpu(989 * TERA, 80 * GIB, 3.35 * TERA, "NVIDIA H100 SXM data sheet"),
  "h200": _gpu(989 * TERA, 141 * 10**9, 4.8 * TERA, "NVIDIA H200 SXM data sheet"),
  "b200": _gpu(2250 * TERA, 180 * 10**9, 7.7 * TERA, "NVIDIA DGX B200 data sheet, an eighth of its figures"),
}


class Host(NamedTuple):
  """The machine that feeds some chips."""

  processors: int  # hardware threads
  chips: int
  source: str


_CLOUD = "Google Cloud documentation, machine type"
HOSTS = {  # of each kind the one that a slice of several hosts has
  "v4": Host(240, 4, f"{_CLOUD} ct4p-hightpu-4t"),
  "v5e": Host(112, 4, f"{_CLOUD} ct5lp-hightpu-4t"),
  "v5p": Host(208, 4, f"{_CLOUD} ct5p-hightpu-4t"),
  "v6e": Host(180, 4, f"{_CLOUD} ct6e-standard-4t"),
  "a100": Host(96, 8, f"{_CLOUD} a2-ultragpu-8g"),
  "h100": Host(208, 8, f"{_CLOUD} a3-highgpu-8g"),
  "h200": Host(224, 8, f"{_CLOUD} a3-ultragpu-8g"),
  "b200": Host(224, 8, f"{_CLOUD} a4-highgpu-8g"),
}
SHAPES = {  # examples for error messages; any other shape that the compiler knows is accepted too
  "v4": ("2x2x1", "2x2x2", "2x2x4", "4x4x4"),
  "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
  "v5p": ("2x2x1", "2x2x2", "2x2x4", "4x4x4", "4x4x8"),
  "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
  **{gpu: ("1", "8", "2x8", "8x8") for gpu in ("a100", "h100", "h200", "b200")},
}  # of GPUs: the number of GPUs, or machines x GPUs per machine

# What XLA must know of a GPU that is not present: name, number of multiprocessors, float units and bytes of
# shared memory per multiprocessor, bytes of L2 cache, clock in GHz, compute capability.
GPUS = {
  "a100": ("NVIDIA A100-SXM4-80GB", 108, 64, 167_936, 41_943_040, 1.41, 8),
  "h100": ("NVIDIA H100 80GB HBM3", 132, 128, 233_472, 52_428_800, 1.98, 9),
  "h200": ("NVIDIA H200", 132, 128, 233_472, 52_428_800, 1.98, 9),
  "b200": ("NVIDIA B200", 148, 128, 233_472, 132_644_864, 1.965, 10),
}


def target_of(gpu: str) -> str:
  """The GPU described as XLA's GpuTargetConfigProto, in text form."""
  name, cores, units, shared, cache, clock, capability = GPUS[gpu]
  chip = CHIPS[gpu]
  fields = dict(
    threads_per_block_limit=1024,
    threads_per_warp=32,
    threads_per_core_limit=2048,
    block_dim_limit_x=2**31 - 1,
    block_dim_limit_y=65535,
    block_dim_limit_z=65535,
    thread_dim_limit_x=1024,
    thread_dim_limit_y=1024,
    thread_dim_limit_z=64,
    registers_per_core_limit=65536,
    registers_per_block_limit=65536,
    shared_memory_per_block=49152,
    shared_memory_per_core=shared,
    shared_memory_per_block_optin=shared - 1024,
    core_count=cores,
    fpus_per_core=units,
    l2_cache_size=cache,
    clock_rate_ghz=clock,
    memory_bandwidth=int(chip.bandwidth),
    device_memory_size=chip.memory,
  )
  lines = "\n".join(f"  {field}: {value}" for field, value in fields.items())
  return (
    f"gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ major: {capability} }}\n}}\n"
    f'platform_name: "CUDA"\ndnn_version_info {{ major: 9 minor: 10 }}\ndevice_description_str: "{name}"\n'
  )


def known() -> list[str]:
  """The topologies that error messages list."""
  return [f"{chip}:{shape}" for chip, shapes in SHAPES.items() for shape in shapes]
