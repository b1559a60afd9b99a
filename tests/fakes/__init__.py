"""Stand-ins for stages, used by tests only."""
