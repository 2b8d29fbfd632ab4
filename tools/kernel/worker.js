// Python in a worker: Pyodide, packages, and runner.py. kernel.js hands over the files, so a second worker asks the network
// for nothing but two scripts, which the browser has in its cache by then. A package is unpacked when it is imported; one
// that was not handed over is fetched then.
import { loadPyodide } from "./pyodide.mjs";

const WASM = "pyodide.asm.wasm";
const files = {};
let python, runner;

const output = (text) => postMessage({ kind: "output", ...JSON.parse(text) });

/** Let Pyodide find its files in what was handed over, and nowhere else. */
function closeTheNet(module) {
  self.fetch = async (address) => {
    const name = String(address.url ?? address).split("/").pop();
    if (name === WASM) return new Response();
    if (!(name in files)) throw new Error(`${name} was not handed over`);
    return new Response(files[name]);
  };
  const { instantiate } = WebAssembly;
  WebAssembly.instantiateStreaming = async (_, imports) => ({ module, instance: await instantiate(module, imports) });
}

/** Return a file at once: what runs waits for it, since an import cannot be awaited. */
function fetchNow(name) {
  if (!(name in files)) {
    postMessage({ kind: "progress", text: `Fetching ${name.split("-")[0]}` });
    const request = new XMLHttpRequest();
    request.open("GET", new URL(name, import.meta.url), false);
    request.responseType = "arraybuffer";
    request.send();
    if (request.status !== 200) throw new Error(`${name} is not there (${request.status})`);
    files[name] = request.response;
  }
  return python.toPy(files[name]);
}

/** Say which wheel brings what can be imported, as {name: [wheel, sha256]}. */
function catalogue({ packages }) {
  const wheels = Object.values(packages);
  return Object.fromEntries(wheels.flatMap((each) => each.imports.map((name) => [name, [each.file_name, each.sha256]])));
}

async function start({ module }) {
  if (python) return true;
  postMessage({ kind: "progress", text: "Starting Python" });
  closeTheNet(module);
  const here = new URL("./", import.meta.url).href;
  const lock = JSON.parse(new TextDecoder().decode(files["pyodide-lock.json"]));
  const env = { HOME: "/home/pyodide", MPLBACKEND: "agg" };
  python = await loadPyodide({ indexURL: here, packageBaseUrl: here, lockFileContents: lock, env });
  python.setStdin({ error: true }); // nobody types into a page
  python.FS.mkdir("/live");
  python.FS.writeFile("/live/runner.py", new Uint8Array(files["runner.py"]));
  python.runPython("import sys; sys.path.append('/live')");
  runner = python.pyimport("runner").Runner(output);
  runner.install();
  runner.bring(JSON.stringify(catalogue(lock)), python.runPython("import site; site.getsitepackages()[0]"), fetchNow);
  python.runPython("import divergence_notes.grading"); // so that the first check does not wait for it
  return true;
}

onmessage = async ({ data }) => {
  const began = performance.now();
  const done = (said) => postMessage({ kind: "done", ms: performance.now() - began, ...said });
  try {
    if (data.kind === "start") {
      Object.assign(files, data.files);
      done({ ok: await start(data) });
    } else {
      done({ ok: runner.run.callKwargs(data.source, data.name, { hidden: !!data.hidden, fresh: !!data.fresh }) });
    }
  } catch (error) {
    // What a cell raises is no such error: Python itself has ended, as where a function calls itself through C.
    done({ ok: false, fatal: true, text: `${data.kind === "start" ? "" : "Python has ended: "}${error.message ?? error}` });
  }
};
