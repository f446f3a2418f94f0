"""exporters, optimum: what a product is for, by the path of its module in transformers."""

import re

ROLES = {  # the ends of paths in a layer; the first that matches
    "attention.q": r"\b(query|query_proj|q|q_lin|q_proj|q_linear)$",
    "attention.k": r"\b(key|key_proj|k|k_lin|k_proj|k_linear)$",
    "attention.v": r"\b(value|value_proj|v|v_lin|v_proj|v_linear)$",
    "attention.qkv": r"\b(query_key_value|c_attn|qkv_proj|qkv|Wqkv)$",
    "attention.o": r"(?i:att\w*)\.(output\.)?(dense|out_lin|out_proj|o_proj|c_proj|o|Wo)$",
    "mlp.gate": r"\b(gate_proj|wi_0)$",
    "mlp.up": r"\b(intermediate\.dense|lin1|fc1|c_fc|dense_h_to_4h|up_proj|gate_up_proj|fc_in|wi|wi_1|ffn|Wi)$",
    "mlp.down": r"\b(output\.dense|lin2|fc2|c_proj|dense_4h_to_h|down_proj|fc_out|wo|ffn_output|Wo)$",
}
PATTERNS = {role: re.compile(pattern) for role, pattern in ROLES.items()}


def role_of(path: str, layer: int | None) -> str:
    """The role of a product in a layer; elsewhere, and where no pattern knows it, its path."""
    if layer is not None:
        for role, pattern in PATTERNS.items():
            if pattern.search(path):
                return role
    return path or "linear"
