"""A stand-in for gcloud with one slice, whose worker 0 runs commands as a test wants."""

import re
import shlex
import subprocess


class Cloud:
  """Answers gcloud's commands; `calls` lists them.

  Args:
    answers: what the next questions for the state of the queued resource find: "-" (nothing), a state, or
      "!" and an error. When they are used up, the state stays.
    outcomes: how the next commands or connections end: an exit status, "cut" (the connection) or "preempted".
      When they are used up, commands end with status 0.
  """

  def __init__(self, answers=(), outcomes=(), state="", command="", keep=False):
    self.answers, self.outcomes, self.calls = list(answers), list(outcomes), []
    self.state, self.command, self.keep, self.running, self.status = state, command, keep, bool(command), 1

  def run(self, words, **options) -> subprocess.CompletedProcess:
    """Takes the place of subprocess.run."""
    assert words[:3] == ["gcloud", "compute", "tpus"]
    self.calls.append(shlex.join(words))
    status, output, error = getattr(self, f"_{words[4]}")(words)
    return subprocess.CompletedProcess(words, status, output, error)

  def _create(self, words):
    self.state = "ACTIVE"
    return 0, "", ""

  def _delete(self, words):
    self.state = ""
    return 0, "", ""

  def _describe(self, words):
    queued = words[3] == "queued-resources"
    if "message" in words[-1] or "message" in words[-2]:
      return 0, "quota exceeded\n", ""
    if queued and self.answers:
      answer = self.answers.pop(0)
      if answer.startswith("!"):
        return 1, "", answer[1:]
      self.state = "" if answer == "-" else answer
    if not self.state:
      return 1, "", "ERROR: NOT_FOUND: no such resource"
    return 0, "READY" if self.state == "ACTIVE" and not queued else self.state, ""

  def _scp(self, words):
    return 0, "", ""

  def _ssh(self, words):
    line = next(word for word in words if word.startswith("--command="))
    if self.state != "ACTIVE":
      return 255, "", "connection timed out"
    if started := re.search(r"worker\.sh start (\d) (.*)", line):
      self.keep, self.command, self.running = started[1] == "1", " ".join(shlex.split(started[2])), True
    elif line.endswith("follow"):
      return self._follow(self.outcomes.pop(0) if self.outcomes else 0)
    elif line.endswith(" state") and self.command:
      told = f"state={'running' if self.running else 'ended'}\nstatus={self.status}\n"
      return 0, f"{told}keep={int(self.keep)}\ncommand={self.command}\n", ""
    return 0, "", ""

  def _follow(self, outcome):
    if outcome == "cut":
      return 255, "", ""
    self.running = False
    if outcome == "preempted":
      self.state, self.command = "SUSPENDED", ""
      return 255, "", ""
    self.status = outcome
    return 0, "", ""
