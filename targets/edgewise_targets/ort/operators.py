"""targets, ort: the operators that may remain: what families, recipes and options leave, and no other."""

from edgewise_targets.dialect import operators

OPERATORS = operators(
    "Add Cast Clip ConstantOfShape CumSum Div Erf Expand Gather GatherElements Gelu LayerNormalization Less Log MatMul "
    "Max Min Mul Neg Pow QuantizeLinear Range ReduceMax ReduceMin ReduceSum Relu Reshape ScatterElements Shape Sigmoid "
    "SimplifiedLayerNormalization Slice Softmax Split Sub Sum Tanh TopK Transpose Unsqueeze Where",
    "BranchwiseRMSNorm FusedMatMul GatedAdd GatherBlockQuantized GroupQueryAttention MatMulIntegerToFloat MatMulNBits "
    "MoE MultiHeadAttention QMoE QuickGelu RotaryEmbedding SkipSimplifiedLayerNormalization",
)
