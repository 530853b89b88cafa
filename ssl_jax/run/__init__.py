"""Runs, from config to checkpoints: builds, trains, saves, restores and evaluates what a config names."""
