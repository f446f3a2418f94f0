"""plugins: compression passes."""
