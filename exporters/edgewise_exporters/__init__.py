"""exporters: checkpoint to canonical graph."""
