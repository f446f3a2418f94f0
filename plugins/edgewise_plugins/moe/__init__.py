"""plugins, moe: mixtures of experts with fewer experts, or with fewer that each token is given to."""
