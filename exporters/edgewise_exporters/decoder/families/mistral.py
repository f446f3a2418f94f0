"""exporters, decoder, families: Mistral (arXiv 2310.06825): llama with one window over every layer."""

from edgewise_exporters.decoder.family import Family
from edgewise_exporters.decoder.layers import sliding_layers

FAMILY = Family("mistral", layer_types=sliding_layers, defaults={"sliding_window": 4096})
