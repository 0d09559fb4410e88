"""Which sequences run in the next step, and what their results mean. A calculation: time comes in, events go out."""
