"""sdk, bench: how fast a bundle is on this machine, and what of the machine that takes."""
