"""Checkpoints: from files that anybody may have written to a model that runs, or to one clear error."""
