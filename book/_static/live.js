// Python in the page: code cells that run, and boxes in which an answer is judged. Nothing is loaded before a click; the kernel and the editor
// are then (the folder "live" of the site). What the page has to run is said by tools/live.py in the script with the id "live-data".
document.addEventListener("DOMContentLoaded", () => {
  const data = JSON.parse(document.getElementById("live-data").textContent);
  const folder = new URL(data.kernel, location.href);

  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  };
  const button = (text, onclick, props = {}) => make("button", { type: "button", className: "live-button", textContent: text, onclick, ...props });
  const status = (props = {}) => {
    const node = make("p", props);
    node.setAttribute("role", "status");
    return node;
  };
  const article = document.querySelector("main article.bd-article");
  const bar = make("div", { className: "live-bar" });

  // ---- what this place cannot do is said in words
  const wasm = () => { // a policy of the site may forbid it: try with the smallest module there is
    try { return !!new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0)); } catch { return false; }
  };
  const cannot = location.protocol === "file:" ? "This page lies on a disk: from there a browser starts no Python. Served (by make serve, for example), its code runs here."
    : !(window.Worker && window.WebAssembly && window.DecompressionStream && wasm()) ? "This browser, or the site, does not let Python run in the page." : "";
  if (cannot || data.cells) (article.querySelector("h1 ~ p") ?? article.querySelector("h1")).after(bar);
  if (cannot) {
    bar.append(make("p", { className: "live-note" }, `${cannot} The code runs in JupyterLab or `, elsewhere("Colab"), "."));
    return;
  }
  function elsewhere(text) { return data.colab ? make("a", { href: data.colab, textContent: text }) : text; }

  // ---- a kernel, and whom it tells
  let module;
  const kernels = () => (module ??= import(new URL("kernel.js", folder).href).catch((error) => { module = null; throw error; }));
  class Python {
    constructor(packages, say) { Object.assign(this, { packages, say, to: () => {} }); }
    async start() { // resolves to the last message; a kernel that is there already starts at once
      let Kernel;
      try {
        ({ Kernel } = await kernels());
      } catch { return { ok: false, text: "its files could not be loaded" }; }
      this.kernel ??= new Kernel((message) => {
        if (message.kind === "progress") this.say(message.total ? `${message.text}: ${Math.round((100 * message.loaded) / message.total)} % …` : `${message.text} …`);
        else if (message.kind === "output") this.to(message);
      });
      return ["ready", "running"].includes(this.kernel.state) ? { ok: true } : this.kernel.start(this.packages);
    }
    async run(source, options, to) {
      const started = await this.start();
      if (!started.ok) return { ...started, cold: true };
      this.to = to;
      return this.kernel.run(source, options);
    }
    stop() { this.kernel?.stop(); }
  }

  // ---- an editor: a text field until its script is there
  let editing;
  const editors = () => (editing ??= new Promise((resolve, reject) => {
    const script = make("script", { src: new URL("../vendor/editor.js", folder).href });
    script.onload = () => resolve((holder, ...more) => {
      // Sphinx takes a "/" for a wish to search, except in a text field, and an editor is none to it
      holder.addEventListener("keydown", (event) => { if (event.key === "/") event.stopPropagation(); });
      return window.liveEditor.edit(holder, ...more);
    });
    script.onerror = () => { editing = null; reject(new Error("the editor could not be loaded")); };
    document.head.append(script);
  }));
  const keys = "Shift+Enter runs it; Tab leaves the editor; Ctrl+] indents.";

  // ---- what a run says, shown in a place
  const ALLOWED = new Set("TABLE THEAD TBODY TFOOT TR TH TD CAPTION DIV SPAN P BR B I EM STRONG CODE PRE UL OL LI DL DT DD H1 H2 H3 H4 H5 H6 SUB SUP HR SMALL".split(" "));
  function plain(html) { // markup of a cell, without what could run
    const copy = (from, to) => {
      for (const child of from.childNodes) {
        if (child.nodeType === Node.TEXT_NODE) to.append(child.data);
        else if (ALLOWED.has(child.nodeName)) {
          const node = make(/^H\d$/.test(child.nodeName) ? "p" : child.nodeName);
          for (const name of ["class", "colspan", "rowspan", "scope", "data-plane"]) if (child.hasAttribute(name)) node.setAttribute(name, child.getAttribute(name));
          if (child.nodeName === "TH" && !child.textContent.trim()) to.append(copy(child, make("td")));
          else to.append(copy(child, node));
        }
      }
      return to;
    };
    return copy(new DOMParser().parseFromString(html, "text/html").body, make("div", { className: "output text_html" }));
  }
  function failure({ text, short, line }) { // the last line first: it says what is wrong
    return make("div", { className: "output live-out" },
      make("pre", { className: "live-error", textContent: short + (line ? `\nin line ${line}` : "") }),
      make("details", {}, make("summary", { textContent: "The whole message" }), make("pre", { textContent: text })));
  }
  class Place {
    constructor(target) { Object.assign(this, { target, figures: [...target.querySelectorAll("figure:has(img)")] }); }
    keep() { // how it was published
      this.published ??= { nodes: [...this.target.childNodes], images: this.figures.map((figure) => { const img = figure.querySelector("img"); return { img, src: img.src, alt: img.alt }; }) };
    }
    begin(alt) {
      this.keep();
      Object.assign(this, { alt, fresh: true, used: 0, pre: null });
    }
    clear() { // what was there goes when the first new thing comes, and a figure stays for the new picture
      if (!this.fresh) return;
      this.fresh = false;
      for (const child of [...this.target.childNodes]) if (!this.figures.includes(child)) child.remove();
    }
    add(node) {
      const next = this.figures[this.used];
      next ? next.before(node) : this.target.append(node);
      this.pre = null;
      return node;
    }
    show({ type, data: said }) {
      this.clear();
      if (type === "out" || type === "err" || type === "text") {
        const text = String(said) + (type === "text" ? "\n" : "");
        if (this.pre?.dataset.type !== type) {
          const pre = make("pre", { tabIndex: 0 });
          pre.dataset.type = type;
          this.add(make("div", { className: `output live-out ${type === "err" ? "stderr" : "stream"} highlight` }, pre));
          this.pre = pre;
        }
        this.pre.append(text);
      } else if (type === "error") this.add(failure(said));
      else if (type === "html") {
        this.add(plain(String(said)));
        window.divergenceNotesPlane?.mountAll(this.target); // plane.js, where the page has a plane of Q
      }
      else if (type === "svg") this.picture(said);
      else if (type === "widget") this.widget(said);
    }
    picture(svg) {
      const figure = this.figures[this.used];
      const img = figure?.querySelector("img") ?? make("img", { alt: "A picture that this code draws" });
      if (img.src.startsWith("blob:")) URL.revokeObjectURL(img.src);
      img.src = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
      if (figure) {
        img.alt = this.alt(this.published.images[this.used].alt);
        figure.classList.remove("live-gone");
        this.used += 1;
        this.pre = null;
      } else this.add(make("div", { className: "output" }, img));
    }
    widget(said) {
      if (!window.require) return void this.add(make("p", { textContent: "This page has no sliders, so it cannot show one." }));
      const holder = make("div", { className: "output jupyter-widgets-holder" },
        make("script", { type: "application/vnd.jupyter.widget-state+json", textContent: JSON.stringify(said.manager_state) }),
        ...said.view_specs.map((view) => make("script", { type: "application/vnd.jupyter.widget-view+json", textContent: JSON.stringify(view) })));
      this.add(holder);
      window.require(["@jupyter-widgets/html-manager/dist/libembed-amd"], (embed) => embed.renderWidgets(holder));
    }
    done(ok) { // a picture that was not drawn again is none of this code
      this.clear();
      if (ok) this.figures.slice(this.used).forEach((figure) => figure.classList.add("live-gone"));
    }
    restore() {
      if (!this.published) return;
      for (const { img, src, alt } of this.published.images) {
        if (img.src.startsWith("blob:")) URL.revokeObjectURL(img.src);
        Object.assign(img, { src, alt });
      }
      this.figures.forEach((figure) => figure.classList.remove("live-gone"));
      this.target.replaceChildren(...this.published.nodes);
    }
  }

  // ---- run this page
  if (data.cells) page();
  function page() {
    const said = status();
    const first = button(`Run this page (${data.sizes.page}, once)`, open, { classList: "live-button first" });
    const all = button("Run all cells", () => runAll(), { hidden: true });
    const stop = button("Stop", halt, { hidden: true }); // what runs; where nothing does, it begins anew
    said.textContent = "Python runs in your browser; nothing leaves it.";
    bar.append(first, all, stop, said);
    const say = (text) => { said.textContent = text; };
    const kernel = new Python(data.packages.page, say);
    const idle = () => { stop.textContent = "Restart Python"; };
    let cells, owner = {}, clock = 0;

    async function open() {
      first.disabled = true;
      stop.textContent = "Stop";
      stop.hidden = false;
      bar.setAttribute("aria-busy", "true");
      try {
        cells ??= (await (await fetch(new URL(data.cells, location.href))).json()).map((cell, number) => ({ ...cell, number, text: () => cell.source }));
        const started = kernel.start();
        const edit = await editors();
        if (!cells.some((cell) => cell.tools)) cells.forEach((cell) => prepare(cell, edit));
        const { ok, stopped, text } = await started;
        if (!ok) throw new Error(stopped ? "it was stopped" : text);
        say("Python is here. Change a cell and press its Run, or Shift+Enter in it.");
        first.hidden = true;
        all.hidden = false;
        if (!running) idle();
      } catch (error) {
        say(`Python did not start: ${error.message}.`);
        first.disabled = false;
        stop.hidden = true;
      }
      bar.removeAttribute("aria-busy");
    }

    function prepare(cell, edit) {
      const block = document.querySelector(`main div.cell[data-cell="${cell.number}"]`);
      if (!block) return;
      const name = `cell ${cell.number + 1}`;
      let target = block.querySelector(":scope > .cell_output, :scope > details .cell_output"); // folded with its code, or not
      const tools = make("div", { className: "live-tools" });
      const code = block.querySelector(":scope .cell_input");
      (block.querySelector(":scope > details") ?? code)?.after(tools);
      if (cell.asks) {
        const why = cell.asks === "data" ? "reads files that lie beside the package" : `needs ${cell.asks}, here or in a cell before it`;
        tools.append(make("p", { className: "live-note" }, `This cell ${why}: it runs in JupyterLab or `, elsewhere("Colab"), "."));
        return;
      }
      if (!target) block.append((target = make("div", { className: "cell_output docutils container" })));
      const old = code.querySelector(":scope > div");
      const holder = make("div", { className: "live-editor" });
      old.replaceWith(holder);
      const view = edit(holder, cell.source, `Code of ${name}. ${keys}`, () => run(cell));
      const go = button("Run", ({ detail }) => (!cell.busy ? run(cell) : detail < 2 && halt())); // a double click is no Stop
      go.setAttribute("aria-label", `Run ${name}`);
      const back = button("As published", () => {
        view.set(cell.source);
        cell.place.restore();
        if (cell.edited) cell.ran = undefined;
        cell.edited = false;
        back.hidden = true;
        note.textContent = "";
      }, { hidden: true });
      back.setAttribute("aria-label", `As published: ${name}`);
      const note = make("p", { className: "live-note" });
      tools.append(go, back, note);
      Object.assign(cell, {
        tools, block, name, note, place: new Place(target), text: view.text,
        mark(busy) {
          cell.busy = busy;
          go.textContent = busy ? "Stop" : "Run";
          go.setAttribute("aria-label", `${busy ? "Stop" : "Run"} ${name}`);
          busy ? block.setAttribute("aria-busy", "true") : block.removeAttribute("aria-busy");
          if (busy) note.textContent = "runs …";
          else back.hidden = false;
        },
      });
    }

    // Which cells run before one: those that it needs, as far as they have not run as they are now, and those that must write a name again.
    const changed = (cell) => cell.text() !== cell.source;
    const words = (text) => new Set(text.match(/[\p{L}_][\p{L}\p{N}_]*/gu) ?? []);
    function makers(name, at) {
      let last = at - 1;
      while (last >= 0 && !defines(cells[last]).includes(name)) last -= 1;
      return last < 0 ? [] : [last, ...cells.slice(last + 1, at).filter((cell) => cell.changes.includes(name)).map((cell) => cell.number)];
    }
    function defines(cell) {
      if (!changed(cell)) return cell.defines;
      return [...cell.defines, ...[...cell.text().matchAll(/^\s*(?:def |class |for )?([\p{L}_][\p{L}\p{N}_]*)(?=\s*(?:[=:(,]|in\b))/gmu)].map((found) => found[1])];
    }
    function takes(cell) {
      const found = Object.entries(cell.takes);
      if (!changed(cell)) return found;
      const known = new Set(found.map(([name]) => name));
      for (const name of words(cell.text())) {
        if (known.has(name)) continue;
        const made = makers(name, cell.number);
        if (made.length) found.push([name, made]);
      }
      return found;
    }
    function todo(target) {
      const needed = new Set(), list = new Set([target.number]);
      const follow = (cell) => {
        if (needed.has(cell.number)) return;
        needed.add(cell.number);
        takes(cell).forEach(([, made]) => made.forEach((number) => follow(cells[number])));
      };
      follow(target);
      for (const number of needed) if (cells[number].ran !== cells[number].text()) list.add(number);
      for (let before = 0; before !== list.size;) {
        before = list.size;
        for (const number of [...needed].sort((a, b) => a - b)) {
          const cell = cells[number], taken = takes(cell);
          if (list.has(number)) {
            for (const [name, made] of taken) {
              const overwritten = [...list].some((other) => other < number && !made.includes(other) && (cells[other].defines.includes(name) || cells[other].changes.includes(name)));
              if (overwritten || owner[name] !== made.at(-1) || made.some((other) => list.has(other))) made.forEach((other) => list.add(other));
            }
          } else if (taken.some(([, made]) => made.some((other) => list.has(other) || cells[other].at > cell.at))) list.add(number);
        }
      }
      return [...list].sort((a, b) => a - b).map((number) => cells[number]);
    }

    // One cell after the other; `turn` is another after each Stop.
    let turn = {}, line = Promise.resolve(), running = 0;
    function run(target) {
      if (target.waits) return target.waits; // pressed twice, it runs once
      const mine = turn;
      running += 1;
      stop.textContent = "Stop";
      target.note.textContent = "waits";
      const done = line.then(() => (turn === mine ? before(target, mine) : false)).finally(() => {
        if (turn !== mine) return;
        target.waits = undefined;
        if (!--running) idle();
      });
      line = done.catch(() => {});
      return (target.waits = done);
    }
    async function before(target, mine) {
      for (const cell of todo(target)) {
        if (cell.asks) {
          target.note.textContent = `needs cell ${cell.number + 1}, which does not run here`;
          say(`Cell ${target.number + 1} needs cell ${cell.number + 1}, which does not run here.`);
          return false;
        }
        if (cell !== target) target.note.textContent = `waits for cell ${cell.number + 1}, which it needs`;
        say(cell === target ? `Cell ${cell.number + 1} runs.` : `Cell ${cell.number + 1} runs, which cell ${target.number + 1} needs.`);
        const done = await now(cell, target, mine);
        if (!done) return false;
      }
      return true;
    }
    async function now(cell, target, mine) {
      const text = cell.text(), began = performance.now();
      if (cell === target) cell.waits = undefined;
      const edited = changed(cell) || takes(cell).some(([, made]) => made.some((number) => cells[number].edited));
      cell.place?.begin((alt) => (edited ? `Drawn anew from the code above, which was changed; as published: ${alt}` : alt));
      cell.mark?.(true);
      const answer = await kernel.run(text, { name: `cell ${cell.number + 1}`, hidden: cell.hidden }, (output) => {
        if (cell.place) cell.place.show(output);
        else if (output.type === "error") say(`Cell ${cell.number + 1}, which is not shown, raised ${output.data.short}`);
      });
      if (turn !== mine) return false;
      cell.mark?.(false);
      if (answer.cold) {
        cell.place?.restore();
        say(`Python did not start: ${answer.text}`);
        cell.note && (cell.note.textContent = "not run");
        return false;
      }
      cell.place?.done(answer.ok);
      if (answer.fatal) {
        forget();
        cell.place?.show({ type: "error", data: { short: answer.text, text: answer.text } });
      }
      Object.assign(cell, { ran: answer.ok ? text : undefined, at: ++clock, edited });
      for (const name of [...defines(cell), ...cell.changes]) owner[name] = cell.number;
      if (cell.note) cell.note.textContent = answer.ok ? `ran in ${((performance.now() - began) / 1000).toFixed(1)} s` : "raised an error";
      if (!answer.ok && cell !== target) target.note.textContent = `not run: cell ${cell.number + 1}, which it needs, raised an error`;
      if (answer.ok || cell.place) say(answer.ok ? `Cell ${cell.number + 1} ran.` : `Cell ${cell.number + 1} raised an error.`);
      return answer.ok;
    }
    async function runAll() {
      all.disabled = true;
      const mine = turn;
      let ok = true;
      for (const cell of cells.filter((one) => one.place)) if (!(ok = turn === mine && (await run(cell)))) break;
      if (ok) say("Every cell that runs here has run.");
      all.disabled = false;
    }
    function forget() { // Python has ended, and what the cells had computed is gone
      owner = {};
      for (const cell of cells ?? []) cell.ran = undefined;
    }
    function halt() {
      const ran = running || kernel.kernel?.state === "starting";
      turn = {};
      line = Promise.resolve();
      running = 0;
      kernel.stop();
      forget();
      for (const cell of cells ?? []) {
        cell.waits = undefined;
        if (cell.busy) cell.mark(false);
        if (/^(waits|runs)/.test(cell.note?.textContent)) cell.note.textContent = "stopped";
      }
      idle();
      say(`${ran ? "Stopped. What" : "Python begins anew. What"} the cells had computed is gone; Run on a cell computes again what that cell needs.`);
    }
  }

  // ---- boxes for answers
  const kept = { // in this browser; where that is not allowed, for this visit
    get(id) { try { return localStorage.getItem(`answer ${id}`); } catch { return null; } },
    set(id, text) { try { text === null ? localStorage.removeItem(`answer ${id}`) : localStorage.setItem(`answer ${id}`, text); } catch { /* not kept */ } },
  };
  const boxes = [], PATIENT = 3; // wrong answers, and the box offers to unfold the solution
  let judging, judged = Promise.resolve();
  for (const [id, { code, answer }] of Object.entries(data.boxes)) {
    const exercise = document.getElementById(id);
    const field = make("textarea", { id: `answer-${id}`, value: kept.get(id) ?? code, spellcheck: false, rows: code.split("\n").length + 1 });
    field.setAttribute("autocapitalize", "off");
    field.setAttribute("autocomplete", "off");
    const holder = make("div", { className: "live-editor" }, field);
    const label = make("label", { htmlFor: field.id, textContent: "Your answer, in Python" });
    const said = status({ className: "live-verdict" });
    const result = make("div");
    const box = { id, field, text: () => field.value };
    const fetches = `Check (${data.sizes.check}, once)`;
    let known = false, tries = 0;
    const go = button(fetches, ({ detail }) => (!box.busy ? check() : detail < 2 && halt()));
    const again = button("Begin again", () => {
      if (!boxes.some((one) => one.busy)) judging?.stop(); // a new Python, too: code may have changed more than its own names
      box.set(code);
      kept.set(id, null);
      said.textContent = "";
      said.className = "live-verdict";
      result.replaceChildren();
    });
    const tools = make("div", { className: "live-tools" }, go, again, make("p", { className: "live-note", textContent: "Says whether it is right; is not handed in." }));
    exercise.append(make("div", { className: "live-answer" }, label, holder, tools, said, result));
    const keep = () => kept.set(id, box.text() === code ? null : box.text());
    field.addEventListener("input", keep);
    field.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.shiftKey) { event.preventDefault(); if (!box.busy) check(); } });
    Object.assign(box, {
      set(text) { field.value = text; },
      upgrade(edit) {
        const focused = document.activeElement === field;
        const view = edit(holder, field.value, `Your answer, in Python. ${keys}`, () => { if (!box.busy) check(); }, keep);
        field.remove();
        delete box.upgrade;
        label.removeAttribute("for");
        Object.assign(box, { text: view.text, set: view.set });
        if (focused) view.focus();
      },
      ready() { known = true; if (!box.busy) go.textContent = "Check"; },
    });
    boxes.push(box);

    const mark = (busy) => {
      box.busy = busy;
      go.textContent = busy ? "Stop" : known ? "Check" : fetches;
      busy ? holder.setAttribute("aria-busy", "true") : holder.removeAttribute("aria-busy");
    };
    const solution = () => document.querySelector(`.solution:has(> .admonition-title a[href="#${id}"])`);
    const unfold = () => {
      const fold = solution();
      lead(`#${fold.id}`); // of access.js: it may lie in another fold
      fold.scrollIntoView();
      fold.querySelector(".admonition-title a").focus({ preventScroll: true });
    };
    const say = (text, kind = "") => { said.textContent = text; said.className = `live-verdict ${kind}`; };
    function halt() {
      judging.stop();
      boxes.forEach((one) => one.stopped());
    }
    box.stopped = () => { if (box.busy) { mark(false); box.busy = null; say("Stopped."); } };
    const check = () => {
      mark(true);
      result.replaceChildren();
      say("waits for the check before it");
      const mine = (box.busy = {});
      judged = judged.then(() => look(mine)).catch((error) => say(String(error)));
    };

    async function look(mine) {
      if (box.busy !== mine) return;
      judging ??= new Python(data.packages.check, () => {});
      judging.say = (text) => { if (box.busy === mine) say(text); };
      say("Python comes …");
      editors().then((edit) => boxes.forEach((one) => one.upgrade?.(edit)), () => {});
      const started = await judging.start();
      if (box.busy !== mine) return;
      const place = new Place(make("div"));
      place.begin((alt) => alt);
      let verdict;
      if (started.ok) say("Python looks at it …");
      const source = `${box.text()}\n\nfrom divergence_notes import grading\ngrading.check("${id}", ${answer})`;
      const ended = started.ok ? await judging.run(source, { name: "your answer", fresh: true }, (output) => {
        if (output.type === "verdict") verdict = output.data;
        else place.show(output);
      }) : started;
      if (box.busy !== mine) return;
      mark(false);
      result.append(place.target);
      if (!started.ok) return say(`Python did not start: ${started.text}`);
      boxes.forEach((one) => one.ready());
      if (!verdict) return say(ended.text ?? "Your code raised an error.", "wrong");
      const [message, instance] = verdict.message.split(/ (?=That was with )/);
      const state = verdict.passed ? "right" : verdict.open ? "" : "wrong";
      say(`${verdict.passed ? "Right. " : verdict.open ? "" : "Not yet. "}${message}`, state);
      const more = make("div", { className: "live-tools" });
      if (instance) more.append(button("On which example?", ({ target }) => { target.remove(); say(`${said.textContent} ${instance.replace(/; the result's `arguments` holds it/, "")}`, state); }));
      tries += state === "wrong";
      if (state === "wrong" && tries >= PATIENT && solution()) more.append(button("Show the solution", unfold));
      if (more.childNodes.length) result.append(more);
    }
  }
});
