"""Compares two checkouts bit by bit: losses and states of every method, and the output of the commands.

python tests/same_bits.py BEFORE AFTER            both checkouts on this machine, one after the other
python tests/same_bits.py BEFORE --save=OLD.json  records one checkout
python tests/same_bits.py OLD.json AFTER          compares a checkout with a record of this machine

Each checkout is run by its own conformance suite (tests/test_methods.py) and its own command line, so that
modules may have moved between the two. Exit status 0: everything that both have is equal; methods and files
that only one of them has are listed.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

STEPS = 20
RECORD = """
import hashlib, json, sys
import tests.conftest
import jax, numpy as np
from tests.test_methods import ELEMENTS, compiled, methods, parts_of, raw_batch

def digest(tree):
  found = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    leaf = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    found.update(f"{leaf.dtype}{leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes())
  return found.hexdigest()

def elements(name):  # a checkout from before the records has only images with labels
  return parts_of(name).data.elements or ELEMENTS

found = {}
for name in methods.known():
  step, _, init, _ = compiled(name, 1)
  state, losses = init(), []
  for i in range(int(sys.argv[1])):
    batch = raw_batch(i, elements(name))
    state, metrics = step(state, jax.device_put(batch, step.input_shardings[0][1]))
    losses.append(float(metrics["loss"].value()).hex())
  found[name] = {
    "losses": losses, "metrics": sorted(metrics), "state": digest(state), "extra": digest(state.extra)
  }
  print(name, losses[-1], file=sys.stderr, flush=True)
  compiled.cache_clear()
  jax.clear_caches()
print(json.dumps(found))
"""
COMMANDS = (  # compared are the metrics that they write, without speeds, and the scalars of evaluations
  (
    "train",
    "--config=configs/pretrain/moco_sample.py",
    "--workdir=moco",
    "--config.epochs=0.5",
    "--config.log_every=1",
    "--config.data.split=train[:2000]",
    "--config.method.queue_size=1024",
    "--config.optimizer.warmup_epochs=0.0",
  ),
  (
    "train",
    "--config=configs/pretrain/supervised_sample.py",
    "--workdir=supervised",
    "--config.epochs=0.5",
    "--config.log_every=1",
    "--config.data.split=train[:2000]",
    "--config.data.crop=host",
    "--config.data.workers=2",
    "--config.data.cache=False",
    "--config.optimizer.warmup_epochs=0.0",
  ),
  (
    "evaluate",
    "--config=configs/transfer/knn.py",
    "--workdir=moco",
    "--config.data.train_split=train[:1000]",
    "--config.data.test_split=test[:500]",
  ),
  (
    "evaluate",
    "--config=configs/transfer/robustness.py:cifar10",
    "--workdir=supervised",
    "--config.data.test_split=test[:200]",
    "--config.tasks.robustness.corruptions=('contrast','gaussian_noise')",
    "--config.tasks.robustness.severities=(1,5)",
  ),
)
CLOCKS = (
  "images_per_second",
  "waiting_share",
  "input_images_per_second",
  "step_images_per_second",
  "waiting_fraction",
)


def record(checkout: pathlib.Path) -> dict:
  """Records the losses, digests and metrics of one checkout."""
  environment = {**os.environ, "PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
  run = subprocess.run(
    [sys.executable, "-c", RECORD, str(STEPS)],
    cwd=checkout,
    env=environment,
    stdout=subprocess.PIPE,
    check=True,
  )
  found = {"methods": json.loads(run.stdout), "files": {}}
  folder = pathlib.Path(tempfile.mkdtemp())
  try:
    for command, config, workdir, *options in COMMANDS:
      words = [command, config, workdir.replace("=", f"={folder}/"), *options]
      subprocess.run(
        [sys.executable, "-m", "ssl_jax", *words],
        cwd=checkout,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
      )
    for path in sorted(folder.rglob("*.json*")):
      if path.name == "metrics.jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows]
        found["files"][str(path.relative_to(folder))] = rows
      elif "evaluations" in path.parts:
        found["files"][str(path.relative_to(folder))] = json.loads(path.read_text())["scalars"]
  finally:
    shutil.rmtree(folder)
  return found


def main() -> None:
  """Records or compares checkouts, as described in the module docstring."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("before", type=pathlib.Path)
  parser.add_argument("after", type=pathlib.Path, nargs="?")
  parser.add_argument("--save", type=pathlib.Path)
  options = parser.parse_args()
  sides = [
    json.loads(side.read_text()) if side.is_file() else record(side.resolve())
    for side in (options.before, options.after)
    if side
  ]
  if options.save:
    options.save.write_text(json.dumps(sides[0], indent=1))
  if len(sides) == 1:
    return
  different = 0
  for part in ("methods", "files"):
    before, after = sides[0][part], sides[1][part]
    for name in sorted(before.keys() | after.keys()):
      if name not in before or name not in after:
        print(f"{part}: {name} is in {'BEFORE' if name in before else 'AFTER'} only")
      else:
        same = before[name] == after[name]
        different += not same
        print(f"{part}: {name} {'same bits' if same else 'DIFFERS'}")
  sys.exit(bool(different))


if __name__ == "__main__":
  main()
