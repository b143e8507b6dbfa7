"""The commands of `adtr-jax`, one file each."""
