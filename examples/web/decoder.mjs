// A bundle's decoder on onnxruntime-web alone: tokens in, the likeliest tokens out, one after the other.

const GRAPH = "onnx/model.onnx";
const ARRAYS = { float32: Float32Array, float16: globalThis.Float16Array ?? Uint16Array, int8: Int8Array };

export class Decoder {
  constructor(ort, session, layers) {
    this.ort = ort;
    this.session = session;
    this.layers = layers;
    this.types = new Map(session.inputMetadata.map(({ name, type }) => [name, type]));
  }

  // `read(name)` gives the bytes of a file of the bundle.
  static async load(ort, read, options = {}) {
    const manifest = JSON.parse(new TextDecoder().decode(await read("manifest.json")));
    const externalData = [{ path: "model.onnx_data", data: await read(`${GRAPH}_data`) }];
    const settings = { executionProviders: ["wasm"], externalData, ...options };
    const session = await ort.InferenceSession.create(await read(GRAPH), settings);
    return new Decoder(ort, session, manifest.facts.attention);
  }

  // At most `count` tokens after `prompt`; those of `stop` end it.
  async *greedy(prompt, count, stop = []) {
    let [tokens, held, cache] = [prompt, 0, this.empty()];
    for (let made = 0; made < count; made++) {
      held += tokens.length;
      const found = await this.session.run({ ...this.inputs(tokens, held), ...cache });
      const next = likeliest(found.logits);
      for (const name in cache) cache[name] = found[name.replace("past_key_values", "present")];
      if (stop.includes(next)) return;
      yield next;
      tokens = [next];
    }
  }

  inputs(tokens, held) {
    const ids = BigInt64Array.from(tokens, BigInt);
    const mask = new BigInt64Array(held).fill(1n);
    return {
      input_ids: new this.ort.Tensor("int64", ids, [1, ids.length]),
      attention_mask: new this.ort.Tensor("int64", mask, [1, held]),
    };
  }

  // Keys and values of no tokens.
  empty() {
    const cache = {};
    this.layers.forEach((layer, index) => {
      for (const part of ["key", "value"]) {
        const name = `past_key_values.${index}.${part}`;
        const type = this.types.get(name);
        cache[name] = new this.ort.Tensor(type, new ARRAYS[type](), [1, layer.kv_heads, 0, layer.head_dim]);
      }
    });
    return cache;
  }
}

// The token of the highest score after the last position; of equals, the first.
function likeliest(logits) {
  const vocabulary = logits.dims.at(-1);
  const scores = logits.data.subarray(logits.data.length - vocabulary);
  let best = 0;
  for (let token = 1; token < vocabulary; token++) if (scores[token] > scores[best]) best = token;
  return best;
}
