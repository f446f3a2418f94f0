"""plugins, distill: a model that learns from another one, in torch, without its original code."""
