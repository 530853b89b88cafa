"""A self-contained HTML report about one run, or about several runs side by side."""

from ssl_jax.view.report.page import report

__all__ = ["report"]
