"""A run from its config to its checkpoints: what is named is built, trained, saved, restored and measured."""
