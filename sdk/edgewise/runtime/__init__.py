"""sdk, runtime: what ships to a device: sessions, caches, the runner. numpy, onnxruntime and tokenizers."""
