"""targets, foreign: graphs of other exporters, whose attention is left as it is: the runtime keeps their cache."""
