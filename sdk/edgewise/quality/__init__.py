"""sdk, quality: how far a model is from the float model that it was made from, on a text."""
