"""Where a Step becomes arrays, a forward pass, and chosen tokens."""
