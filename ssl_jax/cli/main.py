"""The command line: `ssl-jax COMMAND --flags`, also `python -m ssl_jax`."""

from __future__ import annotations

import logging
import os
import sys

import absl.logging
from absl import flags

from ssl_jax.cli import ahead, learn, look, weights
from ssl_jax.cli.flags import Command, exit_with, parse
from ssl_jax.cli.huge_pages import restart_with_huge_pages
from ssl_jax.config.checked import nearest

_ALL: dict[str, Command] = {**ahead.COMMANDS, **learn.COMMANDS, **look.COMMANDS, **weights.COMMANDS}
_ORDER = ("recipes", "train", "evaluate", "plan", "prepare", "report", "import", "export", "watch", "show")
COMMANDS = {name: _ALL[name] for name in _ORDER}


def main() -> None:
  """Runs the command named first; the other words are its flags.

  Exit status: 0 done, 1 failed, 2 misused, 75 asked to stop and saved (the same command goes on), 130 interrupted.
  """
  words = sys.argv[1:]
  if not words or words[0] in ("-h", "--help", "help"):
    print(_overview())
    sys.exit(0 if words else 2)
  name, *words = words
  if name not in COMMANDS:
    exit_with(f"no command is called {name!r}{nearest(name, COMMANDS)}", 2)
  if {"-h", "--help"} & set(words):
    print(_help(name))
    return
  values = parse(name, COMMANDS[name], words)
  restart_with_huge_pages()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  flags.FLAGS(["ssl-jax"])  # libraries read the global flags
  absl.logging.set_verbosity(
    absl.logging.FATAL
  )  # Orbax logs every folder, and logs errors that it raises as well
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it repeats at exit what was raised long before
  _call(COMMANDS[name], values)


def _call(command: Command, values) -> None:
  """Runs the command and turns its errors into one message and an exit status."""
  from ssl_jax.run.stop import Stopped  # imports jax, which --help must not wait for

  try:
    command.run(values)
  except Stopped as stopped:
    exit_with(str(stopped), 75)
  except (ValueError, OSError, RuntimeError) as error:
    if os.environ.get("SSL_JAX_TRACEBACK"):
      raise
    from ssl_jax import parallel

    exit_with(f"{parallel.whoami()}{error}\n(SSL_JAX_TRACEBACK=1 shows where this was raised)", 1)
  except KeyboardInterrupt:
    exit_with("interrupted", 130)


def _overview() -> str:
  lines = [f"  {name:10} {command.run.__doc__.splitlines()[0]}" for name, command in COMMANDS.items()]
  return (
    "ssl-jax: self-supervised visual representation learning.\n\n"
    + "\n".join(lines)
    + "\n\n`ssl-jax COMMAND --help` tells more."
  )


def _help(name: str) -> str:
  command = COMMANDS[name]
  lines = [
    f"  --{s.name.replace('_', '-'):12} {s.help}"
    + (f" (default {s.default})" if s.default not in (None, "") else "")
    for s in command.flags
  ]
  return (
    "\n".join(line.removeprefix("  ") for line in command.run.__doc__.splitlines()) + "\n" + "\n".join(lines)
  )
