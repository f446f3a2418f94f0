"""ONNX Runtime's MatMulNBitsQuantizer: the products of a float graph in 4 bits, as its methods do them.

    python ort_quantizer.py METHOD MODEL.onnx QUANTIZED.onnx CALIBRATION.npy

Needs torch, which all methods but the default one import.
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import matmul_nbits_quantizer as nbits

BLOCK = 32


class Reader(nbits.CalibrationDataReader):  # type: ignore[misc]
    """Inputs of the graph for each sequence, with an empty cache."""

    def __init__(self, model: onnx.ModelProto, sequences: np.ndarray) -> None:
        self.past = {
            value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
            for value in model.graph.input
            if value.name.startswith("past_key_values.")
        }
        self.sequences = iter(sequences)

    def get_next(self) -> dict[str, np.ndarray] | None:
        tokens = next(self.sequences, None)
        return None if tokens is None else self._inputs(tokens[None])

    def __deepcopy__(self, memo: object) -> "Reader":
        return self

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(self.get_next, None)

    def _inputs(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        empty = {name: np.zeros((1, heads, 0, size), np.float32) for name, (_, heads, _, size) in self.past.items()}
        return {"input_ids": tokens, "attention_mask": np.ones_like(tokens), **empty}


Method = Callable[[onnx.ModelProto, np.ndarray], nbits.WeightOnlyQuantConfig | None]

METHODS: dict[str, Method] = {
    "default": lambda model, sequences: None,
    "default-4": lambda model, sequences: None,
    "default-embedding": lambda model, sequences: None,
    "rtn": lambda model, sequences: nbits.RTNWeightOnlyQuantConfig(),
    "hqq": lambda model, sequences: nbits.HQQWeightOnlyQuantConfig(block_size=BLOCK),
    "k_quant": lambda model, sequences: nbits.KQuantWeightOnlyQuantConfig(),
    "gptq": lambda model, sequences: nbits.GPTQWeightOnlyQuantConfig(Reader(model, sequences)),
}


def product_of_its_own(model: onnx.ModelProto) -> None:
    """A tied lm_head as a MatMul with a constant: the quantizer takes no other products."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "FusedMatMul":
            head = numpy_helper.from_array(numpy_helper.to_array(weights[node.input[1]]).T.copy(), "lm_head.weight")
            model.graph.initializer.append(head)
            product = helper.make_node("MatMul", [node.input[0], head.name], node.output, node.name)
            node.CopyFrom(product)


def quantize(method: str, source: str, output: str, calibration: str) -> None:
    model = onnx.load(source)
    product_of_its_own(model)
    quantizer = nbits.MatMulNBitsQuantizer(
        model,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=4 if method == "default-4" else None,
        op_types_to_quantize=("MatMul", "Gather") if method == "default-embedding" else None,
        algo_config=METHODS[method](model, np.load(calibration)),
    )
    quantizer.process()
    result = quantizer.model.model if hasattr(quantizer.model, "model") else quantizer.model
    location = output.rpartition("/")[2] + "_data"
    onnx.save(result, output, save_as_external_data=True, location=location, size_threshold=1024)


def main() -> None:
    quantize(*sys.argv[1:])


if __name__ == "__main__":
    main()
