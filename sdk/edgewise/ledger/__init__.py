"""sdk, ledger: bundles side by side, for one device: what each takes, how fast it is, and what it costs in quality."""
