"""Fakes that ship: an engine without a model, a tokenizer without a file, a checkpoint without training.

They are for our tests and for those of people who build on openwork.
"""
