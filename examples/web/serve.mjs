// node serve.mjs BUNDLE [PORT]: this folder on http://127.0.0.1:PORT, and the bundle under /bundle/.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

// With these a page may have threads that share memory, over which the products of a model are spread.
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cache-Control": "no-cache",
};

const [bundle, port = "8000"] = process.argv.slice(2);
if (!bundle) {
  console.error("usage: node serve.mjs BUNDLE [PORT]");
  process.exit(2);
}
const folders = { "/bundle/": resolve(bundle), "/": fileURLToPath(new URL(".", import.meta.url)).replace(/.$/, "") };

function find(url) {
  let path;
  try {
    path = decodeURIComponent(url.split("?")[0]);
  } catch {
    return null; // "%" that encodes nothing
  }
  const [prefix, folder] = Object.entries(folders).find(([prefix]) => path.startsWith(prefix));
  const file = resolve(join(folder, path === "/" ? "index.html" : path.slice(prefix.length)));
  return file.startsWith(folder + sep) ? file : null;
}

async function serve(request, response) {
  const file = find(request.url);
  const found = file && (await stat(file).catch(() => null));
  if (!found?.isFile()) {
    response.writeHead(404).end();
    return;
  }
  const type = TYPES[extname(file)] ?? "application/octet-stream";
  response.writeHead(200, { ...HEADERS, "Content-Type": type, "Content-Length": found.size });
  createReadStream(file).pipe(response);
}

const server = createServer(serve);
server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
