"""sdk, planner: what a model takes on a device and how fast it will be, from shapes and figures of the hardware.

`count` reads a lowered graph once, and gives a `Work`: plain numbers, which everything else here computes with.
"""
