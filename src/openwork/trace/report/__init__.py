"""Report: what happened, written for people after an incident: waits and their culprits, memory, hits and remedies."""
