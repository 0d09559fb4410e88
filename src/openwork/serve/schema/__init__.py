"""What clients may send and what they are answered: typed records, one file for each family of routes."""
