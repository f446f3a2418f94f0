"""Programs that the benchmarks start: one runtime each, in its own process and, for a peer, its own environment."""
