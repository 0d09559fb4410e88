"""What happens to a sequence when its candidates are known: it goes on, forks, or stops. Integers only."""
