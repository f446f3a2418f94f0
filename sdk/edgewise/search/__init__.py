"""sdk, search: ways to choose tokens, and the protocol they share."""
