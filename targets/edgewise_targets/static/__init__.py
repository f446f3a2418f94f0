"""targets, static: graphs of fixed lengths made of standard operators, for accelerators that compile ahead of time."""
