// In the document that is printed: formulas, tables and pictures get the room that they need, boxes get marks at their ends,
// and numbers of pages come in.
globalThis.paper = (() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const mm = 96 / 25.4, PAGE = (297 - 44) * mm; // the height of a page within its margins, as in paper.css
  const SMALL = 0.8; // a formula may get that much smaller before it takes the margin, too
  let boxes = [];

  const formulas = (column, width) => {
    for (const formula of all("mjx-container")) {
      const shrink = (room) => { formula.style.fontSize = `${(100 * room) / long}%`; };
      const long = formula.querySelector("mjx-math").getBoundingClientRect().width;
      if (!formula.hasAttribute("display")) { // in a line, which it must not leave
        const line = formula.closest("p, li, td, th, dd, dt, figcaption, h1, h2, h3, h4, div").getBoundingClientRect().width;
        const most = long > line / SMALL ? line + width - column : line;
        if (long > most && most > 0) shrink(most);
        continue;
      }
      const box = formula.closest("div.math") ?? formula, number = box.querySelector(".eqno") ? 14 * mm : 0;
      const own = box.getBoundingClientRect().width, room = own - number, more = width - column;
      if (long > room - number) formula.style.textAlign = "left";
      if (long <= room) continue;
      if (long > room / SMALL) box.style.width = `${own + more}px`;
      const last = long > room / SMALL ? room + more : room;
      if (long > last) shrink(last);
    }
  };
  const wide = (column, width) => {
    for (const picture of all("figure > :is(img, svg)")) {
      if (picture.getBoundingClientRect().width > column + 1) picture.closest("figure").classList.add("wide");
    }
    for (const table of all("table")) {
      if (table.getBoundingClientRect().width <= table.parentElement.getBoundingClientRect().width + 1) continue;
      table.classList.add("wide");
      if (table.getBoundingClientRect().width > width + 1) table.style.zoom = width / table.getBoundingClientRect().width;
    }
  };
  const outputs = (column, width) => { // what is printed in columns keeps them
    for (const text of all(".cell_output pre")) {
      text.style.whiteSpace = "pre";
      if (text.scrollWidth > text.clientWidth) {
        const box = text.closest(".highlight"), own = box.getBoundingClientRect().width;
        box.style.width = `${own + width - column}px`;
        if (text.scrollWidth > text.clientWidth) text.style.fontSize = `${(7.8 * text.clientWidth) / text.scrollWidth}pt`;
      }
      text.style.overflow = "hidden";
    }
  };
  const mark = (where, name, end) => {
    const element = document.createElement("span");
    element.id = name;
    if (where.tagName === "TABLE") where = all("tr", where).at(end ? -1 : 0).cells[0];
    if (where.classList.contains("highlight")) where = where.querySelector("pre");
    else if (where.tagName !== "TD" && where.tagName !== "TH") element.style.display = "block";
    end ? where.append(element) : where.prepend(element);
  };

  return {
    async prepare(column, width, kept) {
      if (all(".math").length) await MathJax.startup.promise;
      await document.fonts.ready;
      await Promise.all(all("img").map((picture) => picture.decode().catch(() => null))) // what is not found is told elsewhere
      column *= mm; width *= mm;
      formulas(column, width);
      wide(column, width);
      outputs(column, width);
      boxes = all(kept).filter((box) => !box.matches(".solution, .proof:not(.theorem, .lemma, .algorithm)"));
      for (const box of boxes) box.classList.toggle("tall", box.getBoundingClientRect().height > PAGE);
      boxes = boxes.filter((box) => !box.classList.contains("tall"));
      boxes.forEach((box, number) => { mark(box, `box-${number}-start`, false); mark(box, `box-${number}-end`, true); });
      const right = document.body.getBoundingClientRect().right + 1;
      const cut = all(".cell_output pre").filter((text) => text.scrollWidth > text.clientWidth + 1);
      const out = all("main *").filter((part) => !part.closest("svg, mjx-container") && part.getBoundingClientRect().right > right);
      return [...cut, ...out].map((part) => `wider than the page: ${part.outerHTML.slice(0, 120)}`);
    },
    // Chromium puts into the PDF those places to which a link leads: so, for a time, each mark has one, behind the last page.
    mark() {
      const links = document.createElement("div");
      links.className = "marks";
      boxes.forEach((_, number) => ["start", "end"].forEach((end) => {
        const link = document.createElement("a");
        link.href = `#box-${number}-${end}`;
        link.textContent = ". ";
        links.append(link);
      }));
      document.body.append(links);
    },
    unmark() { all(".marks").forEach((links) => links.remove()); },
    number(found) {
      const faults = [];
      for (const slot of all("[data-at]")) {
        slot.textContent = found[slot.dataset.at] ?? "";
        if (!slot.textContent) faults.push(`no page for ${slot.dataset.at}`);
      }
      for (const line of all(".index p")) { // a page is named once
        const seen = new Set();
        for (const link of all(".at", line)) {
          link.hidden = seen.has(link.textContent);
          seen.add(link.textContent);
        }
      }
      return faults;
    },
    split(found) {
      const pages = (number) => ["start", "end"].map((end) => found[`box-${number}-${end}`]);
      return boxes.map((box, number) => [box, ...pages(number)]).filter(([, first, last]) => !first || first !== last)
        .map(([box, first, last]) => `on two pages, ${first} and ${last}: ${box.className} ${box.textContent.trim().slice(0, 80)}`);
    },
    tall() { return all(".tall").map((box) => `${box.tagName} ${box.className}: ${box.textContent.trim().slice(0, 80)}`); },
  };
})();
