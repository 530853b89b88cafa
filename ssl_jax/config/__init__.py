"""Configs: written as recipes, completed with all defaults, checked once, then read as frozen dataclasses."""
