// Python in a worker: Pyodide, the packages that the page asks for, and runner.py. kernel.js hands over all files, so a
// second worker asks the network for nothing but two scripts, which the browser has in its cache by then.
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

async function start({ packages, module }) {
  if (!python) {
    postMessage({ kind: "progress", text: "Starting Python" });
    closeTheNet(module);
    const here = new URL("./", import.meta.url).href;
    const lock = JSON.parse(new TextDecoder().decode(files["pyodide-lock.json"]));
    const env = { HOME: "/home/pyodide", MPLBACKEND: "agg" };
    python = await loadPyodide({ indexURL: here, packageBaseUrl: here, lockFileContents: lock, env });
  }
  postMessage({ kind: "progress", text: "Loading packages" });
  const wrong = [];
  await python.loadPackage(packages, { messageCallback: () => {}, errorCallback: (text) => wrong.push(text) });
  if (wrong.length) throw new Error(wrong.join(" "));
  if (!runner) {
    python.FS.mkdir("/live");
    python.FS.writeFile("/live/runner.py", new Uint8Array(files["runner.py"]));
    python.runPython("import sys; sys.path.append('/live')");
    runner = python.pyimport("runner").Runner(output);
    runner.install();
  }
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
    done({ ok: false, text: String(error.message ?? error) });
  }
};
