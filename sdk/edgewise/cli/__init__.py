"""sdk, cli: the command line; the only room that knows click and prints."""
