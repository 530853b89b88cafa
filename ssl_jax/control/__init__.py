"""Environments for policies: simulated bodies seen by a camera, in worlds that look different.

simulator: the packages that this needs, which are imported when an environment is opened. environment: one
environment. worlds: how it looks. camera: pictures of it. experts: policies that see the state. workers:
environments side by side in processes. trajectories: writes what happens in them as a data set.
"""
