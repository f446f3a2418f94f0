"""sdk, tasks: how many answers of a bundle are right, and what a right answer costs."""
