"""Floor 0: the words everybody uses. Standard library only."""
