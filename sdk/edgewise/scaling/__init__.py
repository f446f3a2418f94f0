"""sdk, scaling: compute that is spent at inference: more samples, wider trees, verifiers, several models."""
