"""Images from disk to uint8 batches on the host. Nothing here imports jax: decoding processes start fast."""
