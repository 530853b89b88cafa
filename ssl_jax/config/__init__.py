"""Configs: recipes are written, completed with every default, checked once, and read as frozen dataclasses from then on."""
