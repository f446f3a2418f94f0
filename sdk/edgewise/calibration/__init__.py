"""sdk, calibration: what a model's activations look like on a text: collected once, for every pass that asks."""
