"""exporters, decoder, packed: linear layers that others have quantized, as they are stored on the hub.

A format says which tensors a module has, and how its codes, scales and zero points are read from them. They become a
`BlockQuantized` with the checkpoint's own codes: nothing is rounded a second time.
"""
