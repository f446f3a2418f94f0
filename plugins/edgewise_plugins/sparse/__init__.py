"""plugins, sparse: zeros among the weights: any of them, or two of every four."""
