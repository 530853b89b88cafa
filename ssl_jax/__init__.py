"""ssl_jax: learn a visual representation without labels, measure it, keep learning at test time. Start at core.py."""
