"""Runs a command on Cloud TPU slices. It needs only the standard library and the gcloud command."""
