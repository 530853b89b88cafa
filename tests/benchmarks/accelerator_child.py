"""The process of a case of accelerator.py: it imports, waits for its turn, measures and prints a record."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import traceback

from accelerator_cases import WORK
from accelerator_measure import measure

SECONDS = 5.0  # of measurement
PACKAGES = {
  "ours": ("jax", "jaxlib", "flax", "optax"),
  "host": ("imagecorruptions", "scikit-image", "opencv-python-headless"),
  "": ("torch", "torchvision", "triton"),
}


def main(args) -> None:
  """Prints the record of args.case as "RESULT {...}"; it holds "skipped" if a package is missing."""
  name, side = args.case.split("/")
  sizes = WORK[name].full | (WORK[name].tiny if args.tiny else {})
  if "batch" in sizes:
    sizes["batch"] //= args.divisor
  if name == "input":
    sizes["data"] = args.data
  shown = {key: value for key, value in sizes.items() if key not in ("data", "seconds")}
  more = {"sizes": shown, "versions": versions(side)}

  def report(record: dict) -> None:
    print("RESULT " + json.dumps(record | more), flush=True)

  try:
    work = load(name, side)
    sys.stdin.readline()  # the accelerator is ours from here on
    record = work(sizes, 0.0 if args.tiny else SECONDS, report)
  except ImportError as error:
    record = {"skipped": f"cannot import {error.name}: {error}"[:300]}
  except Exception as error:
    print(traceback.format_exc(), file=sys.stderr)
    record = {"error": f"{type(error).__name__}: {error}"[:600]}
  report(record)


def load(name: str, side: str):
  """Imports what a case needs; returns (sizes, seconds of measurement, report) -> record."""
  host = importlib.import_module("accelerator_host")
  if function := host.HOST.get(f"{name}/{side}"):
    return lambda sizes, seconds, report: function(**sizes)
  if side == "ours":
    ours = importlib.import_module("accelerator_ours").OURS[name]
    return lambda sizes, seconds, report: measure(ours(**sizes), seconds, report)
  theirs = importlib.import_module("accelerator_torch").THEIRS[name]
  return lambda sizes, seconds, report: measure(theirs(side, **sizes), seconds, report)


def versions(side: str) -> dict[str, str]:
  """The versions of the packages of one side that are installed."""
  found = {}
  for name in ("numpy", *PACKAGES.get(side, PACKAGES[""])):
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def count(only: str) -> None:
  """Prints {case: GFLOP of an image} as JSON, for the table in accelerator_cases.py."""
  counts = importlib.import_module("accelerator_counts")
  names = [name for name in counts.COUNTS if not only or name in only.split(",")]
  print(json.dumps({name: round(counts.gflop(name), 3) for name in names}))
