"""sdk, bundle: the folder that a device gets: layout, hashes, crash-safe writing, verification."""
