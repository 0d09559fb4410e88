"""The flight recorder, replay, and the microscope: what happened, whether it would happen again, what was inside."""
