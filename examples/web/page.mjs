// The page: a bundle continues a text, by transformers.js or by onnxruntime-web alone. Nothing comes from elsewhere.

import { AutoModelForCausalLM, AutoTokenizer, env } from "@huggingface/transformers";
import * as ort from "onnxruntime-web/webgpu"; // the module that transformers.js takes: see the import map
import { Decoder } from "./decoder.mjs";

const BUNDLE = "bundle";
const DIST = new URL("./node_modules/onnxruntime-web/dist/", location.href).href;

ort.env.logLevel = "error";
ort.env.wasm.wasmPaths = { mjs: `${DIST}ort-wasm-simd-threaded.mjs`, wasm: `${DIST}ort-wasm-simd-threaded.wasm` };
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = new URL("./", location.href).pathname; // a path: what is a URL counts as remote
env.useBrowserCache = env.useWasmCache = false;

const tokenizer = await AutoTokenizer.from_pretrained(BUNDLE);
const models = {};

// Each way gives the tokens that follow a text.
const WAYS = {
  async "transformers.js"(text, count) {
    models.whole ??= await AutoModelForCausalLM.from_pretrained(BUNDLE, { device: "wasm" });
    const prompt = tokenizer(text);
    const found = await models.whole.generate({ ...prompt, max_new_tokens: count, do_sample: false });
    return Array.from(found.data, Number).slice(prompt.input_ids.dims[1]);
  },

  async "onnxruntime-web"(text, count) {
    models.decoder ??= await Decoder.load(ort, read);
    const { eos_token_id: eos } = JSON.parse(new TextDecoder().decode(await read("config.json")));
    const tokens = [];
    for await (const token of models.decoder.greedy(tokenizer.encode(text), count, [eos].flat())) tokens.push(token);
    return tokens;
  },
};

async function read(name) {
  const response = await fetch(`${BUNDLE}/${name}`);
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

const [form, output] = [document.querySelector("form"), document.querySelector("output")];

async function generate() {
  const { text, count, way } = Object.fromEntries(new FormData(form));
  form.querySelector("button").disabled = true;
  output.textContent = "…";
  try {
    const started = performance.now();
    const tokens = await WAYS[way](text, Number(count));
    const seconds = (performance.now() - started) / 1000;
    output.textContent = text + tokenizer.decode(tokens);
    report({ way, tokens, text: tokenizer.decode(tokens), seconds });
  } catch (error) {
    output.textContent = String(error);
    report({ way, error: String(error) });
  }
  form.querySelector("button").disabled = false;
}

// For whoever watches the console: tests/test_web.py does.
function report(found) {
  const origins = performance.getEntriesByType("resource").map(({ name }) => new URL(name).origin);
  console.log(JSON.stringify({ edgewise: found, origins: [...new Set(origins)], isolated: crossOriginIsolated }));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});

// `?text=...&count=32&way=onnxruntime-web` fills in the form and sends it.
const asked = new URLSearchParams(location.search);
for (const [name, value] of asked) if (form.elements[name]) form.elements[name].value = value;
form.querySelector("button").disabled = false;
if (asked.has("text")) generate();
