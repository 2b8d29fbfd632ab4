// What scrolls sideways can be reached by the keyboard and shows where it goes on, also when the window narrows or a fold opens.
addEventListener("load", () => {
  const goesOn = (box) => {
    const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
    box.classList.toggle("more-left", scrolls && box.scrollLeft > 1);
    box.classList.toggle("more-right", scrolls && box.scrollLeft < box.scrollWidth - box.clientWidth - 1);
  };
  addEventListener("scroll", ({ target }) => { if (target.matches?.("main *")) goesOn(target); }, { capture: true, passive: true });
  // A picture that would shrink to less than half of what it was drawn for, and its letters with it, keeps a width on
  // a phone, and scrolls in a box. The frames of a slider come after the page, each in the place of the one before.
  const SMALL = 640, FRAME = 480; // pixels of a picture, units of a frame: a phone shows about 320
  const widen = (svg) => {
    const box = svg.parentElement;
    if (svg.viewBox.baseVal?.width > FRAME) box.classList.add("wide-picture");
  };
  const reach = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      for (const svg of target.querySelectorAll(".jupyter-widgets svg[role='img']")) widen(svg);
      for (const box of [target, ...target.querySelectorAll("mjx-container, .wide-picture")]) {
        if (box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible") box.tabIndex = 0;
        else if (box.tabIndex === 0) box.removeAttribute("tabindex");
        goesOn(box);
      }
    }
  });
  document.querySelectorAll("main :is(pre, div.math, .output, .cell_output, .pst-scrollable-table-container)")
    .forEach((box) => reach.observe(box));

  for (const picture of document.querySelectorAll("main figure img")) {
    if (picture.naturalWidth <= SMALL) continue;
    const box = document.createElement("div");
    box.className = "wide-picture";
    picture.replaceWith(box);
    box.append(picture);
    reach.observe(box);
  }

  // So does a formula in the text that is wider than the text.
  const main = document.getElementById("main-content");
  const fit = () => {
    const room = document.documentElement.clientWidth;
    for (const formula of main.querySelectorAll("mjx-container:not([display])")) {
      formula.classList.remove("wide");
      formula.removeAttribute("tabindex");
    }
    const wide = [...main.querySelectorAll("mjx-container:not([display])")].filter((formula) => {
      const column = formula.closest("p, li, dd, figcaption, div");
      const all = formula.closest(".with-sign") ?? formula;
      return column && !formula.closest("table") && all.getBoundingClientRect().width > Math.min(room, column.clientWidth);
    });
    for (const formula of wide) {
      formula.classList.add("wide");
      formula.tabIndex = 0;
    }
    main.querySelectorAll("mjx-container:not([display])").forEach(goesOn);
  };
  window.MathJax?.startup?.promise?.then(() => new ResizeObserver(fit).observe(main));

  // The switch between light and dark says where it stands.
  const root = document.documentElement;
  const say = () => {
    document.querySelectorAll(".theme-switch-button")
      .forEach((button) => button.setAttribute("aria-label", `Color mode: ${root.dataset.mode}`));
  };
  new MutationObserver(say).observe(root, { attributeFilter: ["data-mode"] });
  say();
});

// The theme takes the focus off a button that was clicked, so that its tip goes (executablebooks/sphinx-book-theme#407, mended by #484 there);
// by the keyboard it stays where it is.
addEventListener("click", ({ target, detail }) => {
  const button = target.closest?.("button");
  if (button && detail === 0) button.blur = () => {};
  else if (button) delete button.blur;
}, true);

// A link that leads to a folded box, or into one, unfolds it.
const lead = (hash) => {
  let name = hash.slice(1);
  try { name = decodeURIComponent(name); } catch { /* it is what it is */ }
  const target = name && document.getElementById(name), boxes = [];
  for (let box = target?.closest?.(".toggle-hidden"); box; box = box.parentElement.closest(".toggle-hidden")) boxes.push(box);
  boxes.forEach((box) => box.querySelector(".toggle-button")?.click());
  if (boxes.length) target.scrollIntoView();
};
addEventListener("load", () => lead(location.hash));
addEventListener("hashchange", () => lead(location.hash));
addEventListener("click", ({ target }) => {
  const link = target.closest?.("a[href*='#']");
  if (link && link.pathname === location.pathname && link.hash === location.hash) lead(link.hash); // no hashchange
});

// A button plays the slider above it: position by position to its end, and from the start again when it stands there.
addEventListener("click", ({ target }) => {
  const button = target.closest?.("button.dn-play");
  if (!button) return;
  const handle = button.parentElement.querySelector(".dn-played .noUi-handle");
  const press = (key) => handle.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const atEnd = () => handle.getAttribute("aria-valuenow") === handle.getAttribute("aria-valuemax");
  const rest = () => {
    clearInterval(button.timer);
    button.timer = 0;
    button.textContent = "Play";
  };
  const step = () => {
    if (!handle.isConnected || atEnd()) return rest();
    press("ArrowRight");
    if (atEnd()) rest();
  };
  if (button.timer) return rest();
  button.textContent = "Pause";
  button.timer = setInterval(step, 700);
  if (atEnd()) press("Home");
  else step();
});
