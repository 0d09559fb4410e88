"""Replay: a recording done again, decisions and bits, and compared with what was recorded to the first difference."""
