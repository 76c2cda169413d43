"""Settings and a plan become adapters: the one place that chooses implementations."""
