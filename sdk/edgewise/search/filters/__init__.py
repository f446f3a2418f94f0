"""sdk, search: filters of a distribution: each cuts or reshapes what a token is drawn from."""
