"""`python -m ssl_jax.launching`, which launch/tpu_pod.sh calls."""

import sys

from ssl_jax.launching.pod import main

sys.exit(main(sys.argv[1:]))
