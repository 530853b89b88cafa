"""Prints a plan and writes it as JSON."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import rich.console
import rich.table

from ssl_jax.planning.chips import GIB


def write(found: dict[str, Any], output: str | pathlib.Path) -> None:
  """Prints the plan `found`, and writes it as JSON if `output` names a file."""
  console = rich.console.Console(soft_wrap=True, highlight=False)
  names = f"{found['config']['method']['name']}, {found['config']['encoder']['name']}"
  if "tasks" in found:
    for task, row in found["tasks"].items():
      _print(
        console,
        row,
        f"{task} of {names}, {row['roofline']['images_at_once']} images at once on {found['topology']}"
        if "roofline" in row
        else f"{task} of {names} on {found['topology']}",
      )
  else:
    _print(console, found, f"{names}, batch {found['config']['batch_size']} on {found['topology']}")
  if output:
    path = pathlib.Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, default=float))
    console.print(f"wrote {path}", markup=False)


def _print(console: rich.console.Console, found: dict[str, Any], title: str) -> None:
  table = rich.table.Table("a chip", "GiB", title=title, title_justify="left")
  for name, size in found["memory"].items():
    table.add_row(name.replace("_", " "), f"{size / GIB:.3f}")
  console.print(table)
  spare = found["memory"]["usable"] - found["memory"]["total"]
  console.print(
    f"{'fits, with' if found['fits'] else 'DOES NOT FIT, short of'} {abs(spare) / GIB:.2f} GiB a chip"
    + (" to spare" if found["fits"] else "")
  )
  if "roofline" in found:
    image, roof = found["an_image"], found["roofline"]
    console.print(
      f"an image: {image['flops'] / 1e9:.2f} GFLOP, {image['hbm_bytes'] / 1e6:.1f} MB of memory traffic"
    )
    console.print(
      f"a step at least {1000 * roof['step_seconds']:.2f} ms, bound by {roof['bound']} (compute "
      f"{1000 * roof['compute_seconds']:.2f}, memory {1000 * roof['memory_seconds']:.2f}); "
      f"at most {roof['images_a_second']:,.0f} images/s"
    )
    console.print(
      "collectives: "
      + (
        ", ".join(
          f"{row['count']} {kind} ({row['bytes'] / 1e6:.1f} MB)" for kind, row in found["collectives"].items()
        )
        or "none"
      )
    )
  if "schedule" in found:
    console.print(
      f"{found['schedule']['steps']:,} steps, {found['schedule']['hours_at_least']:.2f} hours at least"
    )
  if "host" in found:
    console.print(_input(found["host"]))
  for row in found.get("advice", ()):
    change = " ".join(f"--{name}={value}" for name, value in row["change"].items())
    console.print(
      f"{'fits' if row['fits'] else 'does not fit'}: {change} ({row['total'] / GIB:.2f} GiB)", markup=False
    )


def _input(host: dict[str, Any]) -> str:
  """One sentence about the host's part."""
  if "images_a_second" not in host:
    return f"input: {host.get('held') or 'not measured, because ' + host['unknown']}"
  needed, has = host["processors_needed"], host["processors"]
  return (
    f"input: {host['measured_on']} prepares {host['images_a_second']:,.0f} images/s; at the most images/s a "
    f"chip needs {needed:.1f} such processors, its host has {has:.0f} a chip: "
    + ("enough" if host["feeds"] else f"TOO FEW, the chip waits {1 - has / needed:.0%} of the time")
  )
