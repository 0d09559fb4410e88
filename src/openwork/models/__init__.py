"""Architectures: numbers, names and wiring, one file each, named as checkpoints name themselves."""
