"""targets, ort: the operators that may remain: what families, recipes and options leave, and no other."""

from edgewise_targets.dialect import operators

OPERATORS = operators(
    "Add Cast Clip ConstantOfShape Div Expand Gather GatherElements Gelu Less Log MatMul Max Min Mul Neg "
    "QuantizeLinear ReduceMax ReduceMin ReduceSum Reshape ScatterElements Shape Sigmoid SimplifiedLayerNormalization "
    "Slice Softmax Split Sub Sum Tanh TopK Transpose Unsqueeze Where",
    "BranchwiseRMSNorm FusedMatMul GatedAdd GatherBlockQuantized GroupQueryAttention MatMulIntegerToFloat MatMulNBits "
    "MoE QMoE QuickGelu RotaryEmbedding SkipSimplifiedLayerNormalization",
)
