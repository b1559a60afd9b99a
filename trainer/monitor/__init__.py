"""What a run reports: console lines, metrics, validation losses, spoken sentences."""
