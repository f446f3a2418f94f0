"""tests: what onnxruntime-genai makes of a bundle: its greedy tokens after a prompt. It knows nothing of edgewise.

python genai_peer.py BUNDLE COUNT TOKEN...
"""

import json
import os
import sys

import onnxruntime_genai

folder, count, *prompt = sys.argv[1:]
model = onnxruntime_genai.Model(folder)
if os.path.exists(os.path.join(folder, "tokenizer.json")):
    onnxruntime_genai.Tokenizer(model)  # it loads
parameters = onnxruntime_genai.GeneratorParams(model)
defaults = parameters.get_search_options()
parameters.set_search_options(do_sample=False, max_length=len(prompt) + int(count))
generator = onnxruntime_genai.Generator(model, parameters)
generator.append_tokens([int(token) for token in prompt])
tokens: list[int] = []
while len(tokens) < int(count):
    generator.generate_next_token()
    tokens.append(int(generator.get_next_tokens()[0]))
print(json.dumps({"defaults": defaults, "tokens": tokens}))
