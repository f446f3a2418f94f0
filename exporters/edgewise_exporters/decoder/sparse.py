"""exporters, decoder: which layers have a mixture of experts, and which an MLP for every token."""

from collections.abc import Callable
from typing import Any

from edgewise_exporters.decoder.config import Config

SparseLayers = Callable[[Config, int], tuple[bool, ...]]


def every_layer(config: Config, layers: int) -> tuple[bool, ...]:
    """All of them."""
    return (True,) * layers


def every_nth_layer(config: Config, layers: int) -> tuple[bool, ...]:
    """Every `decoder_sparse_step`-th layer, but for those of `mlp_only_layers`."""
    step, dense = config.integer("decoder_sparse_step", 1), _dense(config)
    return tuple((layer + 1) % step == 0 and layer not in dense for layer in range(layers))


def later_layers(config: Config, layers: int) -> tuple[bool, ...]:
    """All but the first `first_k_dense_replace`."""
    first = config.integer("first_k_dense_replace", least=0)
    config.must_be("moe_layer_freq", 1)
    return tuple(layer >= first for layer in range(layers))


def _dense(config: Config) -> list[Any]:
    layers = config.get("mlp_only_layers")
    if layers is None:
        return []
    if not isinstance(layers, list) or any(type(layer) is not int or layer < 0 for layer in layers):
        raise config.error("mlp_only_layers", "a list of layers, whole numbers from 0")
    return layers
