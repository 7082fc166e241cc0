"""What a person sees while a search runs: progress lines, and a warning when a budget is too short."""
