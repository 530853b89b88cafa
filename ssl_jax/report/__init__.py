"""One self-contained page of a run, or of several side by side."""

from ssl_jax.report.page import report

__all__ = ["report"]
