// The kernel as the page sees it. Another kernel is another file with these two names.
//
// Five messages: start and source go to the worker; progress, output and done come from it. Everything that is fetched
// is checked against the sha256 in live.json and kept, so that a start after a stop is quick.
const HERE = new URL("./", import.meta.url);
const SMALLEST = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]); // a WebAssembly module that is empty
const fetched = new Map(); // name -> Promise of an ArrayBuffer
let manifest, compiled;

/** Return "", or a sentence that says why Python cannot run here. */
export function supported() {
  if (location.protocol === "file:") return "A page opened from a disk may not start Python.";
  try {
    new WebAssembly.Module(SMALLEST);
  } catch {
    return "This browser does not let the page run WebAssembly, which Python needs.";
  }
  if (typeof DecompressionStream === "undefined") return "This browser is too old to run Python in a page.";
  return "";
}

async function ask(name, sha256) {
  const integrity = sha256 && `sha256-${btoa(String.fromCharCode(...sha256.match(/../g).map((two) => parseInt(two, 16))))}`;
  const options = sha256 ? { integrity } : { cache: "no-cache" };
  const answer = await fetch(new URL(name, HERE), options).catch(() => null); // a 404 is not what was expected either
  if (!answer?.ok) throw new Error(`${name} could not be fetched, or is not what it should be.`);
  return answer;
}

/** Fetch each of these files once in the life of a page; one that failed is asked for again the next time. */
function kept(name, make) {
  if (!fetched.has(name)) fetched.set(name, make().catch((error) => { fetched.delete(name); throw error; }));
  return fetched.get(name);
}

/** Return the files that some packages and what they depend on are in. */
function filesOf(packages) {
  const names = new Set(manifest.core), todo = [...packages, ...manifest.always], seen = new Set();
  while (todo.length) {
    const name = todo.pop();
    if (seen.has(name)) continue;
    seen.add(name);
    if (!(name in manifest.packages)) throw new Error(`${name} is not among the packages of this page`);
    const { file, depends } = manifest.packages[name];
    names.add(file);
    todo.push(...depends);
  }
  return [...names];
}

export class Kernel {
  #hear; #worker; #handed = new Set(); #queue = Promise.resolve(); #waiting; #name; #life = 0; #end; #ended;
  state = "cold";

  /** Make a kernel that tells its messages to a function. */
  constructor(hear = () => {}) {
    this.#hear = hear;
    this.#clear();
  }

  /** Start Python with some packages, or add packages; resolve to {ok, ms, text}. */
  start(packages = []) {
    return this.#inTurn("start", async (life) => {
      const began = performance.now();
      if (this.state === "cold") this.state = "starting";
      this.#say({ kind: "progress", text: "Fetching Python" });
      manifest ??= await (await ask("live.json")).json();
      const names = filesOf(packages);
      const sizes = names.map((name) => manifest.files[name].size);
      const total = sizes.reduce((sum, size) => sum + size, 0);
      let loaded = 0;
      const files = {};
      const progress = (index) => this.#say({ kind: "progress", text: "Fetching Python", loaded: (loaded += sizes[index]), total });
      compiled ??= kept(manifest.wasm, async () => {
        const body = (await ask(manifest.wasm, manifest.files[manifest.wasm].sha256)).body;
        const plain = body.pipeThrough(new DecompressionStream("gzip"));
        return WebAssembly.compileStreaming(new Response(plain, { headers: { "Content-Type": "application/wasm" } }));
      });
      const all = names.map(async (name, index) => {
        if (name === manifest.wasm) await kept(name);
        else if (!name.endsWith("js")) files[name] = await kept(name, async () => (await ask(name, manifest.files[name].sha256)).arrayBuffer());
        if (life === this.#life) progress(index);
      });
      await Promise.all(all);
      const module = await kept(manifest.wasm);
      if (life !== this.#life) return undefined; // nobody waits for it any more
      if (!this.#worker) this.#spawn();
      const fresh = Object.fromEntries(Object.entries(files).filter(([name]) => !this.#handed.has(name)));
      Object.keys(fresh).forEach((name) => this.#handed.add(name));
      const message = { kind: "start", packages: [...packages, ...manifest.always], files: fresh, module };
      const said = await this.#ask("start", message);
      if (life === this.#life) this.state = said.ok ? "ready" : "cold";
      return { ...said, ms: performance.now() - began };
    });
  }

  /** Run a cell after those that wait; resolve to {ok, ms}. `hidden` takes its asserts out; `fresh` shares no names. */
  run(source, { name = "cell", hidden = false, fresh = false } = {}) {
    return this.#inTurn(name, async () => {
      if (this.state !== "ready") return { kind: "done", ok: false, text: "Python has not been started." };
      this.state = "running";
      const said = await this.#ask(name, { kind: "source", source, name, hidden, fresh });
      if (this.state === "running") this.state = "ready";
      return said;
    });
  }

  /** End the worker at once, whatever it does; what runs and what waits resolves to {ok: false, stopped: true}. */
  stop() {
    this.#end({ kind: "done", ok: false, stopped: true, ms: 0 });
    this.#clear();
  }

  /** Begin a life: without a worker, and with a promise of how this life ends. */
  #clear() {
    this.#life += 1;
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#handed.clear();
    this.state = "cold";
    this.#ended = new Promise((resolve) => { this.#end = resolve; });
  }

  #say(message) {
    this.#hear({ name: this.#name, ...message });
  }

  /** Do one thing after the other; tell when each is done, and never throw. */
  #inTurn(name, work) {
    const life = this.#life, ended = this.#ended;
    const attempt = async () => {
      try {
        return await work(life);
      } catch (error) {
        if (life === this.#life) this.state = this.#worker ? "ready" : "cold";
        return { kind: "done", ok: false, text: error.message };
      }
    };
    const done = this.#queue.then(async () => {
      this.#name = name;
      const said = await (life === this.#life ? Promise.race([ended, attempt()]) : ended);
      if (said.fatal && life === this.#life) this.#clear();
      this.#name = name;
      this.#say(said);
      return said;
    });
    this.#queue = done;
    return done;
  }

  #spawn() {
    const worker = (this.#worker = new Worker(new URL("worker.js", HERE), { type: "module" }));
    worker.onmessage = ({ data }) => {
      if (worker !== this.#worker) return;
      if (data.kind === "done") this.#waiting?.(data);
      else this.#say(data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      const text = event.message || "The worker of the kernel could not be loaded.";
      if (worker === this.#worker) this.#waiting?.({ kind: "done", ok: false, fatal: true, text });
    };
  }

  #ask(name, message) {
    return new Promise((resolve) => {
      this.#waiting = (said) => { this.#waiting = undefined; resolve(said); };
      this.#worker.postMessage(message);
    });
  }
}
