"""Reads images from disk and delivers batches of numpy arrays on the host.

Nothing in this package imports jax, so that the worker processes that decode start quickly.
"""
