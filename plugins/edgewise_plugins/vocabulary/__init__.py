"""plugins, vocabulary: fewer tokens: rows of the embedding and the lm_head, and the tokenizer that goes with them."""
