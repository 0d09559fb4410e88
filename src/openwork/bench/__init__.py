"""How near the engine comes to what this machine can do. Every figure stands beside a ceiling of the same run."""
