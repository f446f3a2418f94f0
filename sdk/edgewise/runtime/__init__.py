"""sdk, runtime: what ships to a device: sessions, caches, the runner. Imports numpy, onnxruntime and tokenizers only."""
