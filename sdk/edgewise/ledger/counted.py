"""sdk, ledger: a finished bundle, counted as the planner counts one that is to be built."""

from edgewise.bundle.read import Bundle
from edgewise.errors import GraphError
from edgewise.lint.files import read_graphs
from edgewise.planner.count import count
from edgewise.planner.outlook import TOKENIZER, Outlook
from edgewise.sizes import bytes_beside
from edgewise.target import Target


def counted(bundle: Bundle, target: Target) -> Outlook:
    """What the graphs of a bundle come to on a device. Raises GraphError for those that are compiled for theirs."""
    manifest = bundle.manifest
    if "compiled" in manifest.card:
        raise GraphError(
            f"{bundle.path}: its graphs are compiled for {manifest.target}, and cannot be counted any more"
        )
    graphs, _ = read_graphs(bundle.path)
    capacity = manifest.cache.capacity
    model, prompts = graphs[manifest.decoder], graphs.get(manifest.graphs.get("prefill", ""))
    weights = sum(file.bytes for name, file in manifest.files.items() if name.startswith("onnx/"))
    tokenizer = manifest.files.get(TOKENIZER)
    return Outlook(
        target=target,
        work=count(model, capacity=capacity, width=1 if capacity else 0),
        prompts=count(prompts, capacity=capacity, width=manifest.cache.prefill) if prompts else None,
        beside=bytes_beside(prompts, model) if prompts else 0,
        files=sum(file.bytes for file in manifest.files.values()) - weights,
        tokenizer=tokenizer.bytes if tokenizer else 0,
    )
