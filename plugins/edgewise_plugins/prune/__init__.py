"""plugins, prune: what is removed from a model, so that it is smaller and faster on every device."""
