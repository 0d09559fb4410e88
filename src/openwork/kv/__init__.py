"""Paged memory for keys and values, as integers: who holds which block. No arrays, no clock."""
