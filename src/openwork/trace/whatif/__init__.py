"""What-if: the arrivals of a recording under other settings, simulated at the step costs that the recording shows."""
