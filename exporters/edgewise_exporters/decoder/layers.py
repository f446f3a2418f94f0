"""exporters, decoder: which layers attend through a window."""

from collections.abc import Callable

from edgewise_exporters.decoder.config import Config

FULL, SLIDING = "full_attention", "sliding_attention"

LayerTypes = Callable[[Config, int], tuple[str, ...]]


def full_layers(config: Config, layers: int) -> tuple[str, ...]:
    """Every layer sees everything before it."""
    return (FULL,) * layers


def sliding_layers(config: Config, layers: int) -> tuple[str, ...]:
    """Every layer slides, once there is a window."""
    return (FULL if config.get("sliding_window") is None else SLIDING,) * layers


def upper_layers_slide(config: Config, layers: int) -> tuple[str, ...]:
    """Layers from `max_window_layers` on slide, where windows are switched on."""
    first = config.integer("max_window_layers", least=0)
    slides = _windows(config)
    return _listed(config, tuple(SLIDING if slides and layer >= first else FULL for layer in range(layers)))


def all_layers_slide(config: Config, layers: int) -> tuple[str, ...]:
    """Every layer slides, where windows are switched on."""
    return (SLIDING if _windows(config) else FULL,) * layers


def lower_layers_alternate(config: Config, layers: int) -> tuple[str, ...]:
    """Every other layer below `max_window_layers` slides, the first one too, where windows are switched on."""
    last = config.integer("max_window_layers", least=0)
    slides = _windows(config)
    return _listed(
        config, tuple(SLIDING if slides and layer < last and not layer % 2 else FULL for layer in range(layers))
    )


def later_layers_slide(config: Config, layers: int) -> tuple[str, ...]:
    """Layers from `max_window_layers` on slide, once there is a window."""
    first, window = config.integer("max_window_layers", least=0), config.get("sliding_window")
    slide = (SLIDING if window is not None and layer >= first else FULL for layer in range(layers))
    return _listed(config, tuple(slide))


def nope_layers_slide(config: Config, layers: int) -> tuple[str, ...]:
    """Layers without a position embedding slide, where windows are switched on."""
    slides = _windows(config)
    return _listed(config, tuple(SLIDING if slides and not rotates else FULL for rotates in rotating(config, layers)))


def every_nth_is_full(nth: int, *, key: str | None = None) -> LayerTypes:
    """All layers slide but every n-th; `key` may say another n."""

    def layer_types(config: Config, layers: int) -> tuple[str, ...]:
        n = nth if key is None else config.integer(key, nth)
        return _listed(config, tuple(SLIDING if (layer + 1) % n else FULL for layer in range(layers)))

    return layer_types


def rotating(config: Config, layers: int) -> tuple[bool, ...]:
    """Which layers rotate queries and keys: `no_rope_layers` holds a 1 for those that do (sic)."""
    nth = config.integer("no_rope_layer_interval", 4)
    listed = config.get("no_rope_layers")
    if listed is None:
        return tuple((layer + 1) % nth != 0 for layer in range(layers))
    return tuple(bool(flag) for flag in config.choices("no_rope_layers", (0, 1), layers))


def _windows(config: Config) -> bool:
    """Whether windows are switched on; a configuration may give a window and leave it off."""
    window = config.get("sliding_window")
    return config.flag("use_sliding_window", False) and window is not None


def _listed(config: Config, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """The configuration's own list, where it has one."""
    if config.get("layer_types") is None:
        return otherwise
    config.get("sliding_window")  # which changes nothing where no layer is listed as one that slides
    return config.choices("layer_types", (FULL, SLIDING), len(otherwise))
