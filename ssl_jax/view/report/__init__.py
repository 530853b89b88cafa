"""One self-contained page of a run, or of several side by side."""

from ssl_jax.view.report.page import report

__all__ = ["report"]
