"""sdk: the errors a caller can act on.

EdgewiseError
├── CheckpointError          a checkpoint cannot be read, or asks for something that no exporter describes
├── OptionError              an option, a name or a value that the user gave is not accepted
│   └── RecipeError          a recipe, or one of its steps
├── PluginError              a plugin did not load, or two plugins claim one name
├── GraphError               a graph lacks what a pass or a lowering relies on
│   └── LoweringError        a target cannot express what the graph computes
├── TargetError              a target profile is wrong, or the model does not fit it
│   └── MissingDevice        the library or the device of an execution provider is not on this machine
├── GateError                a build finished, and is not good enough to keep
├── BundleError              a bundle is damaged, incomplete or from a newer format, or cannot be written
├── CacheError               keys and values on the disk are damaged or of another model, or cannot be written
├── MissingExtra             an optional dependency is not installed
└── GenerationError          a prompt or a generation that cannot be carried out
    └── ContextOverflow      the prompt, with what is asked for, is longer than the context
"""


class EdgewiseError(Exception):
    """Something that the user can mend; its text says what was wrong, what is known and what to do."""


class CheckpointError(EdgewiseError):
    """A checkpoint cannot be read, or asks for something that no exporter describes."""


class OptionError(EdgewiseError):
    """An option, a name or a value that the user gave is not accepted."""


class RecipeError(OptionError):
    """A recipe, or one of its steps, is wrong."""


class PluginError(EdgewiseError):
    """A plugin did not load, or two plugins claim one name."""


class GraphError(EdgewiseError):
    """A graph lacks what a pass or a lowering relies on."""


class LoweringError(GraphError):
    """A target cannot express what the graph computes."""


class TargetError(EdgewiseError):
    """A target profile is wrong, or the model does not fit it."""


class MissingDevice(TargetError):
    """The library or the device of an execution provider is not on this machine; on another one it may be."""


class GateError(EdgewiseError):
    """A build finished, and is not good enough to keep."""


class BundleError(EdgewiseError):
    """A bundle is damaged, incomplete or from a newer format, or cannot be written."""


class GenerationError(EdgewiseError):
    """A prompt or a generation that cannot be carried out."""


class ContextOverflow(GenerationError):
    """The prompt, with what is asked for, is longer than the context."""


class CacheError(EdgewiseError):
    """Keys and values on the disk are damaged or of another model, or cannot be written; they can be computed again."""


class MissingExtra(EdgewiseError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'edgewise[{extra}]'")
        self.package = package
        self.extra = extra
