"""sdk, probe: what the machine at hand can do, measured through the operators that bundles are made of."""
