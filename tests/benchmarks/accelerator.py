"""Measures ssl_jax beside PyTorch on the accelerator of this machine, within a given time.

    python tests/benchmarks/accelerator.py --minutes=8 --output=FILE.json [--only=moco_step,ttt/ours]
    python tests/benchmarks/accelerator.py --tiny --output=FILE.json     # all cases on a CPU, in minutes
    python tests/benchmarks/accelerator.py --count                       # GFLOP of an image, lowered on a CPU

Needs the extra `bench` and torchvision for the PyTorch sides, `parity` for imagecorruptions, and
nvidia-ml-py for the card's own figures; what is missing is skipped, and the record says so. Every side of
every case runs in a process of its own with a time limit of its own. FILE.json is written after each; a case
that FILE.json already holds is skipped, so that a second call goes on where the first one ended (`--again`
repeats those that failed). The most important cases come first, those that PyTorch has to compile last.

A record holds images a second (the median of three rounds of steps that follow each other without waiting),
milliseconds of a turn, memory in GiB (`peak_gib`: the framework's allocator; `program_gib`: what XLA says;
`card_gib`: the card's memory in use), `busy_card`: the share of the time in which the card ran a kernel, from
NVML's samples, `busy_profiler`: the same from the profiler's trace, `share_of_peak`: of the dense bfloat16
FLOP/s of the data sheet (H100: 989 TFLOP/s), with the FLOPs of our step without recomputation for both sides,
compile seconds (of PyTorch the first turn), sizes, versions and the card. `ratios` are our images a second
divided by theirs: above 1 ours is faster. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

from accelerator_cases import GFLOP, Case, cases, ratios

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Card:
  """Samples how busy the card is and how much of its memory is in use, where NVML is at hand."""

  def __init__(self):
    self.samples: list[tuple[float, int, int]] = []  # time, percent busy, bytes in use
    self.name = ""
    with contextlib.suppress(Exception):  # no NVML, no card
      import pynvml

      pynvml.nvmlInit()
      handle = pynvml.nvmlDeviceGetHandleByIndex(0)
      name = pynvml.nvmlDeviceGetName(handle)
      self.name = name.decode() if isinstance(name, bytes) else name
      threading.Thread(target=self._watch, args=(pynvml, handle), daemon=True).start()

  def _watch(self, nvml, handle) -> None:
    with contextlib.suppress(Exception):
      while True:
        busy, used = nvml.nvmlDeviceGetUtilizationRates(handle).gpu, nvml.nvmlDeviceGetMemoryInfo(handle).used
        self.samples.append((time.time(), busy, used))
        time.sleep(0.1)

  def report(self, began: float, ended: float) -> dict:
    """The mean and the maximum over a window; a sample tells of up to a second before it."""
    held = [row for row in self.samples if began + min(1.0, (ended - began) / 2) <= row[0] <= ended]
    if not held:
      return {}
    return {
      "busy_card": round(sum(row[1] for row in held) / len(held) / 100, 3),
      "card_gib": round(max(row[2] for row in held) / 2**30, 2),
    }


class Child:
  """The process of a case. It imports what it needs at once and begins when it is told to."""

  def __init__(self, case: Case, args, *, divisor: int = 1, flags: str = ""):
    """`divisor`: of the case's batch; `flags`: more XLA_FLAGS."""
    self.case, self.divisor, self.flags = case, divisor, flags
    self.out, self.err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
    words = [sys.executable, __file__, f"--case={case.name}", f"--divisor={divisor}", f"--data={args.data}"]
    self.process = subprocess.Popen(
      words + ["--tiny"] * args.tiny,
      stdin=subprocess.PIPE,
      stdout=self.out,
      stderr=self.err,
      text=True,
      env=environment(args, flags),
      start_new_session=True,
    )

  def run(self, seconds: float) -> dict:
    """Lets it begin; returns its last record, and an error if it did not end well in time."""
    why = ""
    try:
      self.process.communicate("go\n", timeout=seconds)
    except subprocess.TimeoutExpired:
      why = f"did not end within {seconds:.0f} s"
    except BrokenPipeError:
      pass
    self.kill()
    found = [line[7:] for line in self._lines(self.out) if line.startswith("RESULT ")]
    record = json.loads(found[-1]) if found else {}
    if not why and self.process.returncode:
      why = f"exit code {self.process.returncode}: " + " | ".join(self._lines(self.err)[-3:])
    self.close()
    return record | ({"error": why[:600]} if why and "error" not in record else {})

  def _lines(self, file) -> list[str]:
    file.seek(0)
    return [line for line in file.read().splitlines() if line.strip()]

  def kill(self) -> None:
    """Ends the process and those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(self.process.pid, signal.SIGKILL)
    self.process.wait()

  def close(self) -> None:
    """Ends the process, if it still runs, and discards what it printed."""
    self.kill()
    for file in (self.out, self.err, self.process.stdin):
      with contextlib.suppress(BrokenPipeError):
        file.close()


def environment(args, flags: str) -> dict:
  """The environment of a case. Compiled programs are kept for a while: cases share convolutions."""
  path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH", ""), str(ROOT))))
  kept = pathlib.Path(tempfile.gettempdir()) / "ssl_jax_accelerator"
  mine = {
    "PYTHONPATH": path,
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
    "JAX_COMPILATION_CACHE_DIR": str(kept),
    "PYTHONUNBUFFERED": "1",
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
  }
  if args.tiny:
    mine["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
    mine |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
  return os.environ | mine


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--minutes", type=float, default=8.0)
  parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/accelerator.json"))
  parser.add_argument("--only", default="", help="cases or sides of cases, separated by commas")
  parser.add_argument("--data", default="", help="a folder of JPEG files for the input pipelines")
  parser.add_argument("--again", action="store_true", help="repeat cases that failed")
  parser.add_argument("--tiny", action="store_true", help="tiny sizes on the CPU")
  parser.add_argument("--count", action="store_true", help="count the FLOPs of an image and stop")
  parser.add_argument("--case", default="", help=argparse.SUPPRESS)  # in a process of a case
  parser.add_argument("--divisor", type=int, default=1, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.case or args.count:
    import accelerator_child

    return accelerator_child.count(args.only) if args.count else accelerator_child.main(args)
  result = all_cases(args, time.monotonic() + 60 * args.minutes)
  print(json.dumps(result))


def all_cases(args, end: float) -> dict:
  """Runs the cases that FILE does not hold yet, until the time is over."""
  card = Card()
  result = json.loads(args.output.read_text()) if args.output.exists() else {}
  records = result.get("cases", {})
  waiting = [case for case in cases() if wanted(case, args, records)]
  began, ahead = time.monotonic(), None
  for number, case in enumerate(waiting):
    child = ahead or Child(case, args)
    ahead = Child(waiting[number + 1], args) if number + 1 < len(waiting) else None  # imports meanwhile
    record = one_case(child, args, end, card) if end - time.monotonic() >= case.least else None
    child.close()
    if record:
      records[case.name] = record
      result = summary(args, records)
      write(args.output, result)
    shown = line(record) if record else "not measured: no time is left"
    print(f"{time.monotonic() - began:5.0f} s {case.name:24} {shown}", flush=True)
  return result or summary(args, records)


def wanted(case: Case, args, records: dict) -> bool:
  """Whether a case is to be run now."""
  named = not args.only or any(
    name in (case.name, case.work.name, case.side) for name in args.only.split(",")
  )
  return named and (case.name not in records or (args.again and "error" in records[case.name]))


def one_case(child: Child, args, end: float, card: Card) -> dict | None:
  """Runs a case, again with another batch or flags if that may mend it; None if the time was over first."""
  while True:
    began, left = time.monotonic(), end - time.monotonic()
    record = child.run(min(child.case.limit, max(left, 1.0)))
    cut = "error" in record and left < child.case.limit and time.monotonic() >= end
    if cut and "images_per_second" not in record:
      return None
    record |= {"seconds": round(time.monotonic() - began, 1)} | (
      {"xla_flags": child.flags} if child.flags else {}
    )
    mended = mend(child, record.get("error", ""))
    if not mended or "images_per_second" in record or end - time.monotonic() < child.case.least:
      break
    child = Child(child.case, args, **mended)
  record |= card.report(*record.pop("window")) if "window" in record else {}
  gflop, speed = GFLOP.get(child.case.work.name), record.get("images_per_second")
  name = card.name or record.pop("device", "cpu")
  if peak := peak_flops(name):
    if gflop and speed:
      record |= {"gflop_an_image": gflop, "share_of_peak": round(1e9 * gflop * speed / peak, 4)}
  return record | {"card": name}


def mend(child: Child, error: str) -> dict:
  """The options with which a case that failed is worth another try; {} if none are."""
  if ("RESOURCE_EXHAUSTED" in error or "out of memory" in error.lower()) and child.divisor <= 2:
    return {"divisor": 2 * child.divisor, "flags": child.flags}
  if (
    "INTERNAL" in error and child.case.side == "ours" and not child.flags
  ):  # a product that Triton cannot tile
    return {"divisor": child.divisor, "flags": "--xla_gpu_enable_triton_gemm=false"}
  return {}


def peak_flops(name: str) -> float:
  """The card's dense bfloat16 FLOP/s according to its data sheet; 0 if it is not known."""
  if name == "cpu":
    return 0.0
  from ssl_jax.planning.chips import CHIPS

  return next((chip.flops for key, chip in CHIPS.items() if key in name.lower()), 0.0)


def summary(args, records: dict) -> dict:
  kind = {"tiny": True} if args.tiny else {}
  return {"benchmark": "accelerator", **kind, "ratios": ratios(records), "cases": records}


def write(path: pathlib.Path, result: dict) -> None:
  """Writes atomically: a run that is killed leaves whole records."""
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_suffix(".part")
  part.write_text(json.dumps(result, indent=1) + "\n")
  part.replace(path)


def line(record: dict) -> str:
  """A record for the console."""
  names = ("images_per_second", "turn_ms", "share_of_peak", "busy_card", "busy_profiler", "peak_gib")
  shown = [f"{name} {record[name]}" for name in (*names, "compile_seconds", "seconds") if name in record]
  return ", ".join([*shown, *([record[key] for key in ("skipped", "error") if key in record])])


if __name__ == "__main__":
  main()
