"""targets: devices as data, and the lowerings they name."""
