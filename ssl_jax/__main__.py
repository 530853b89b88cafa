"""`python -m ssl_jax` is the command line."""

from ssl_jax.cli.main import main

if __name__ == "__main__":
  main()
