"""An engine in a process of its own: started, watched, restarted, and followed through its death."""
