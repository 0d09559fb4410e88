"""The loop that ties a scheduler to a runner, and the face that callers see. Pure: time and work come from ports."""
