"""plugins: what this package registers."""

from edgewise.hookspecs import hookimpl


@hookimpl
def register_passes() -> dict[str, str]:
    return {
        "accuracy-level": "edgewise_plugins.accuracy_level:AccuracyLevel",
        "active-experts": "edgewise_plugins.moe.prune:ActiveExperts",
        "awq": "edgewise_plugins.awq:Awq",
        "dense-to-moe": "edgewise_plugins.moe.dense:DenseToMoe",
        "distill": "edgewise_plugins.distill.learn:Distill",
        "merge-experts": "edgewise_plugins.moe.merge:MergeExperts",
        "mix": "edgewise_plugins.mix:Mix",
        "prune": "edgewise_plugins.prune.budget:Prune",
        "prune-experts": "edgewise_plugins.moe.prune:PruneExperts",
        "prune-heads": "edgewise_plugins.prune.heads:PruneHeads",
        "prune-hidden": "edgewise_plugins.prune.hidden:PruneHidden",
        "prune-layers": "edgewise_plugins.prune.depth:PruneLayers",
        "prune-vocabulary": "edgewise_plugins.vocabulary.prune:PruneVocabulary",
        "prune-width": "edgewise_plugins.prune.width:PruneWidth",
        "quantize": "edgewise_plugins.quantize:Quantize",
        "quantize-cache": "edgewise_plugins.cache:QuantizeCache",
        "rotate": "edgewise_plugins.rotate:Rotate",
        "skip-experts": "edgewise_plugins.moe.skip:SkipExperts",
        "smoothquant": "edgewise_plugins.smooth:SmoothQuant",
        "sparsify": "edgewise_plugins.sparse.sparsify:Sparsify",
        "w8a8": "edgewise_plugins.w8a8:W8A8",
    }
