"""The command line: `ssl-jax COMMAND --flags`."""
