"""targets, primitive: plain operators: products, softmax and arithmetic, for runtimes without fused attention."""
