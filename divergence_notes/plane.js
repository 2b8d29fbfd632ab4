// The plane of Q, to touch: a start is set by mouse, finger or keys, and the page computes where learning leads from it.
// A plain script, so that a page from the disk may load it; `widgets.plane` adds one line and has a module of it.
// Every number comes with the plane, out of Python; what is computed here is compared with the package in
// tests/test_plane.py: a step with `updates`, what became of it with `dynamics.iterate`.
var divergenceNotesPlane = (() => {
  "use strict";

  // A problem: P[i][s2] and R[i] for the two pairs i = s * n_actions + a, gamma, policy (or null: the max), and either
  // kernel, rho and alpha, or matrix and alpha. With `batch` the kernel is undone on it.
  const matrix = ({ kernel, rho, alpha, matrix, batch }) => {
    if (batch) {
      const M = [[0, 0], [0, 0]];
      for (const j of batch) {
        M[j][j] = alpha;
        if (batch.length < 2) M[1 - j][j] = (alpha * kernel[1 - j][j]) / kernel[j][j];
      }
      return M;
    }
    if (matrix) return matrix.map((row) => row.map((entry) => alpha * entry));
    return kernel.map((row) => row.map((entry, j) => entry * (alpha * rho[j])));
  };

  const backup = ({ actions, P, R, gamma, policy }, x, y) => {
    const one = actions === 2 ? (policy ? policy[0] * x + policy[1] * y : Math.max(x, y)) : x;
    const other = actions === 2 ? 0 : y;
    return R.map((reward, i) => reward + gamma * (P[i][0] * one + (actions === 2 ? 0 : P[i][1] * other)));
  };

  // The update as a function that writes the next table into `out`: a basin asks for millions of steps.
  const stepper = (problem) => {
    if (problem.network) return networkStepper(problem);
    const [[m00, m01], [m10, m11]] = matrix(problem);
    const { actions, P, R, gamma, policy } = problem;
    const two = actions === 2;
    const [a, b] = policy || [0, 0];
    const [p0, p1] = [P[0][0], P[1][0]];
    const [n0, n1] = two ? [0, 0] : [P[0][1], P[1][1]];
    return (x, y, out) => {
      const one = two ? (policy ? a * x + b * y : Math.max(x, y)) : x;
      const other = two ? 0 : y;
      const d0 = R[0] + gamma * (p0 * one + n0 * other) - x;
      const d1 = R[1] + gamma * (p1 * one + n1 * other) - y;
      out[0] = x + (m00 * d0 + m01 * d1);
      out[1] = y + (m10 * d0 + m11 * d1);
    };
  };

  // A network with one hidden layer: z = W x + b, h = f(z), Q_i = v . h_i + c. A start is reached by the smallest change
  // of its last layer.
  const ACTIVATIONS = {
    tanh: [Math.tanh, (z) => 1 - Math.tanh(z) ** 2],
    sin: [Math.sin, Math.cos],
    relu: [(z) => Math.max(z, 0), (z) => (z > 0 ? 1 : 0)],
  };
  const copied = (net) => ({ ...net, W: net.W.map((row) => [...row]), b: [...net.b], v: [...net.v] });
  const dot = (u, w) => u.reduce((sum, entry, k) => sum + entry * w[k], 0);
  const forward = (net) => {
    const [f, slope] = ACTIVATIONS[net.activation];
    return net.x.map((input) => {
      const z = net.W.map((row, k) => dot(row, input) + net.b[k]);
      const h = z.map(f);
      return { h, turn: z.map((value, k) => slope(value) * net.v[k]), q: dot(net.v, h) + net.c };
    });
  };
  // The entry K[i][j] of the kernel: the inner product of the slopes of two values in all parameters.
  const networkKernel = (net) => {
    const seen = forward(net);
    return seen.map((one, i) =>
      seen.map((other, j) => dot(one.h, other.h) + 1 + dot(one.turn, other.turn) * (dot(net.x[i], net.x[j]) + 1)));
  };
  const placed = (given, x, y) => {
    const net = copied(given);
    const [one, other] = forward(net);
    const [a, b, d] = [dot(one.h, one.h) + 1, dot(one.h, other.h) + 1, dot(other.h, other.h) + 1];
    const [r, s] = [x - one.q, y - other.q];
    const det = a * d - b * b;
    const [first, second] = [(d * r - b * s) / det, (a * s - b * r) / det];
    net.v = net.v.map((entry, k) => entry + first * one.h[k] + second * other.h[k]);
    net.c += first + second;
    return net;
  };
  const networkStep = (problem, net) => {
    const seen = forward(net);
    const targets = backup(problem, seen[0].q, seen[1].q);
    const next = copied(net);
    seen.forEach(({ h, turn, q }, i) => {
      const pull = problem.alpha * problem.rho[i] * (targets[i] - q);
      next.c += pull;
      h.forEach((unit, k) => {
        next.v[k] += pull * unit;
        next.b[k] += pull * turn[k];
        net.x[i].forEach((input, d) => { next.W[k][d] += pull * turn[k] * input; });
      });
    });
    return next;
  };
  // It keeps its parameters from step to step, and places them anew where it is asked for another table.
  const networkStepper = (problem) => {
    let net = null;
    let at = [NaN, NaN];
    return (x, y, out) => {
      if (x !== at[0] || y !== at[1]) net = placed(problem.network, x, y);
      net = networkStep(problem, net);
      const [one, other] = forward(net);
      out[0] = one.q;
      out[1] = other.q;
      at = [one.q, other.q];
    };
  };
  // One step of a network from a table, as the key equation predicts it and as it really is.
  const arrows = (problem, x, y) => {
    const net = placed(problem.network, x, y);
    const kernel = networkKernel(net);
    const predicted = [0, 0];
    const real = [0, 0];
    stepper({ ...problem, network: null, matrix: null, kernel })(x, y, predicted);
    forward(networkStep(problem, net)).forEach(({ q }, i) => { real[i] = q; });
    const missed = Math.max(Math.abs(real[0] - predicted[0]), Math.abs(real[1] - predicted[1]));
    return { kernel, predicted, real, missed };
  };

  // What became of it, by the rule of `dynamics.iterate`, number by number.
  const judged = (x, y, before, { tol, bound }) => {
    const size = Math.max(Math.abs(x), Math.abs(y));
    if (!(size <= bound)) return "diverged";
    const step = Math.max(Math.abs(x - before[0]), Math.abs(y - before[1]));
    return step <= tol * Math.max(1, size) ? "converged" : "undecided";
  };
  const iterate = (problem, start, rule, keep = true) => {
    const step = stepper(problem);
    const values = [[...start]];
    const before = [...start];
    const out = [0, 0];
    let status = "undecided";
    for (let k = 0; k < rule.max_iter && status === "undecided"; k++) {
      step(before[0], before[1], out);
      status = judged(out[0], out[1], before, rule);
      if (keep) values.push([out[0], out[1]]);
      before[0] = out[0];
      before[1] = out[1];
    }
    return { values, status };
  };
  // An undecided run goes round if in its second half it came back to where that half began, nearer than a fiftieth of
  // its way across, after it had been further away than half of it. Else it is still moving.
  const goesRound = ({ values, status }) => {
    if (status !== "undecided") return false;
    const tail = values.slice(Math.floor(values.length / 2));
    const [x, y] = tail[0];
    const far = (q) => Math.max(Math.abs(q[0] - x), Math.abs(q[1] - y));
    const across = Math.max(...tail.map(far));
    let away = false;
    for (let k = 1; k < tail.length; k++) {
      const [[ax, ay], [bx, by]] = [tail[k - 1], tail[k]];
      const [dx, dy] = [bx - ax, by - ay];
      const long = dx * dx + dy * dy;
      const t = long ? Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / long)) : 0;
      if (away && far([ax + t * dx, ay + t * dy]) < across / 50) return true;
      away = away || far(tail[k]) > across / 2;
    }
    return false;
  };
  const basin = (problem, [low, high], cells, rule) => {
    const at = (k) => low + ((high - low) * (k + 0.5)) / cells;
    return Array.from({ length: cells }, (_, row) =>
      Array.from({ length: cells }, (_, column) => iterate(problem, [at(column), at(row)], rule, false).status));
  };

  const greedy = ({ actions }, [x, y]) => (actions === 2 ? [y > x ? 1 : 0] : [0, 0]); // the first one on a tie
  // P_pi, from pair to pair, for each policy that targets may follow.
  const chains = ({ actions, P, policy }) => {
    if (actions === 1) return [P];
    return (policy ? [policy] : [[1, 0], [0, 1]]).map((chosen) => P.map(([mass]) => chosen.map((part) => mass * part)));
  };
  // The table that the backup leaves as it is: the largest of the values of the policies, entry by entry.
  const target = (problem) => {
    const { R, gamma } = problem;
    const solved = chains(problem).map(([[a, b], [c, d]]) => {
      const [p, q, r, s] = [1 - gamma * a, -gamma * b, -gamma * c, 1 - gamma * d];
      const det = p * s - q * r;
      return [(s * R[0] - q * R[1]) / det, (p * R[1] - r * R[0]) / det];
    });
    return [0, 1].map((i) => Math.max(...solved.map((q) => q[i])));
  };
  const jacobians = (problem) => {
    const M = matrix(problem);
    return chains(problem).map((chain) => {
      const loop = chain.map((row, i) => row.map((entry, j) => (i === j ? 1 : 0) - problem.gamma * entry));
      return M.map((row, i) => [0, 1].map((j) => (i === j ? 1 : 0) - (row[0] * loop[0][j] + row[1] * loop[1][j])));
    });
  };
  const modulus = (problem) =>
    Math.max(...jacobians(problem).flatMap((J) => J.map((row) => Math.abs(row[0]) + Math.abs(row[1]))));
  // The bound on it that never looks at P: `contraction.row_sum_bound`.
  const rowSumBound = (problem) =>
    Math.max(...matrix(problem).map((row, i) =>
      row.reduce((sum, pull, j) => sum + Math.abs((i === j ? 1 : 0) - pull) + problem.gamma * Math.abs(pull), 0)));

  // ---- What is seen and touched. ----
  const SIDE = 440, LEFT = 46, BOTTOM = 40, SPAN = 384, CELLS = 40, SECONDS = 5;
  const svg = (tag, attributes = {}, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const html = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (/button|input|select/.test(tag)) element.setAttribute("data-lm-suppress-shortcuts", ""); // else its keys are JupyterLab's, where "x" cuts a cell
    element.append(...children);
    return element;
  };
  const number = (value, digits = 2) => {
    const text = Math.abs(value) >= 1e4 ? value.toExponential(1) : value.toFixed(digits);
    return (/^-[0.]+$/.test(text) ? text.slice(1) : text).replace("-", "−");
  };
  const short = (value) => String(Number(value.toPrecision(3))).replace("-", "−");
  const point = ([x, y]) => `(${number(x)}, ${number(y)})`;
  const BATCHES = { both: [0, 1], first: [0], second: [1] };
  const ticks = ([low, high]) => {
    const rough = (high - low) / 6;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
    const first = Math.ceil(low / step - 1e-9);
    const last = Math.floor(high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, k) => (first + k) * step);
  };
  // A slider has whole positions, and at 0 it stands on the number of the book, to the last digit.
  const SLIDERS = {
    alpha: { label: "α, the step size", low: -60, high: 60, value: (p, k) => p.alpha * 10 ** (k / 40),
      put: (p, alpha) => ({ ...p, alpha }) },
    share: { label: "ρ₁, the share of the first", step: 0.01, ends: () => [0, 1], base: (p) => p.rho[0],
      put: (p, share) => ({ ...p, rho: [share, 1 - share] }) },
    coupling: { label: "K₁₂, the coupling", step: 0.05, base: (p) => p.kernel[0][1],
      ends: ({ kernel: [[a], [, d]] }) => [-0.99 * Math.sqrt(a * d), 0.99 * Math.sqrt(a * d)],
      put: (p, c) => ({ ...p, kernel: [[p.kernel[0][0], c], [c, p.kernel[1][1]]] }) },
    gamma: { label: "γ, the discount", step: 0.01, ends: () => [0, 0.99], base: (p) => p.gamma,
      put: (p, gamma) => ({ ...p, gamma }) },
  };
  const range = (kind, problem) => {
    if (kind.value) return { low: kind.low, high: kind.high, value: (k) => kind.value(problem, k) };
    const base = kind.base(problem);
    const [low, high] = kind.ends(problem);
    const places = (end) => (end - base) / kind.step;
    return {
      low: Math.ceil(places(Math.min(low, base)) - 1e-9),
      high: Math.floor(places(Math.max(high, base)) + 1e-9),
      value: (k) => (k === 0 ? base : Math.min(Math.max(base + k * kind.step, low), high)),
    };
  };

  const mount = (root, spec) => {
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const rule = spec.rule;
    let chosen = 0; // which of the problems
    let problem, start, run, other, shown, timer, positions;

    const X = (x) => LEFT + ((x - limits()[0]) / (limits()[1] - limits()[0])) * SPAN;
    const Y = (y) => SIDE - BOTTOM - ((y - limits()[0]) / (limits()[1] - limits()[0])) * SPAN;
    const limits = () => spec.problems[chosen].limits;
    const clear = (group, ...children) => group.replaceChildren(...children);

    // The picture, from back to front.
    const layers = {};
    const inside = svg("svg", { x: LEFT, y: SIDE - BOTTOM - SPAN, width: SPAN, height: SPAN,
      viewBox: `${LEFT} ${SIDE - BOTTOM - SPAN} ${SPAN} ${SPAN}` });
    for (const name of ["basin", "flow", "greedy", "box", "ghost", "path", "arrows", "star"]) {
      inside.append((layers[name] = svg("g", { class: `dn-${name}` })));
    }
    layers.axes = svg("g", { class: "dn-axes" });
    const picture = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img" }, layers.axes, inside);
    const handle = html("button", { type: "button", class: "dn-start" });
    const stage = html("div", { class: "dn-stage" }, picture, handle);
    const words = html("p", { class: "dn-words", "aria-live": "polite" });
    const count = html("span", { class: "dn-count" });

    // The part of a stretch that lies in the square: what runs out of it is not drawn, and makes no page wider.
    const within = ([ax, ay], [bx, by]) => {
      const [dx, dy] = [bx - ax, by - ay];
      let [from, to] = [0, 1];
      const sides = [[-dx, ax - LEFT], [dx, LEFT + SPAN - ax], [-dy, ay - (SIDE - BOTTOM - SPAN)], [dy, SIDE - BOTTOM - ay]];
      for (const [speed, room] of sides) {
        if (speed < 0) from = Math.max(from, room / speed);
        else if (speed > 0) to = Math.min(to, room / speed);
        else if (room < 0) return null;
      }
      return from <= to ? [from, to].map((t) => [ax + t * dx, ay + t * dy]) : null;
    };
    const inSquare = ([x, y]) => within([X(x), Y(y)], [X(x), Y(y)]) !== null;
    const line = (points) => {
      let d = "", last = null, end = null;
      points.forEach((q, k) => {
        const at = [X(q[0]), Y(q[1])];
        if (last && Math.hypot(at[0] - last[0], at[1] - last[1]) < 0.7 && k < points.length - 1) return;
        const part = last && within(last, at);
        if (part) {
          const [from, to] = part.map((place) => place.map((value) => value.toFixed(1)).join(" "));
          d += `${from === end ? "" : `M${from}`}L${to}`;
          end = to;
        }
        last = at;
      });
      return d;
    };
    const arrow = ([ax, ay], [bx, by], kind) => {
      const turn = Math.atan2(Y(by) - Y(ay), X(bx) - X(ax));
      const wing = (side) => `L${X(bx) - 11 * Math.cos(turn + side)} ${Y(by) - 11 * Math.sin(turn + side)}`;
      const tip = `M${X(bx)} ${Y(by)}`;
      const long = Math.hypot(X(bx) - X(ax), Y(by) - Y(ay)) > 11 && inSquare([bx, by]);
      return svg("path", { class: kind, d: line([[ax, ay], [bx, by]]) + (long ? tip + wing(0.4) + tip + wing(-0.4) : "") });
    };
    const dots = (points) => points.filter(inSquare).map(([x, y]) => svg("circle", { cx: X(x), cy: Y(y), r: 3 }));

    const drawAxes = () => {
      const parts = [svg("rect", { x: LEFT, y: SIDE - BOTTOM - SPAN, width: SPAN, height: SPAN })];
      for (const value of ticks(limits())) {
        parts.push(svg("path", { d: `M${X(value)} ${SIDE - BOTTOM}v5M${LEFT} ${Y(value)}h-5` }));
        parts.push(svg("text", { x: X(value), y: SIDE - BOTTOM + 19, "text-anchor": "middle" }, short(value)));
        parts.push(svg("text", { x: LEFT - 9, y: Y(value) + 5, "text-anchor": "end" }, short(value)));
      }
      parts.push(svg("text", { x: LEFT + SPAN / 2, y: SIDE - 4, "text-anchor": "middle" }, "Q₁"));
      parts.push(svg("text", { x: 12, y: SIDE - BOTTOM - SPAN / 2, "text-anchor": "middle" }, "Q₂"));
      clear(layers.axes, ...parts);
      const [low, high] = limits();
      clear(layers.greedy, ...(problem.actions === 2 ? [svg("path", { d: line([[low, low], [high, high]]) })] : []));
    };
    const drawFlow = () => {
      const step = stepper(problem);
      const [low, high] = limits();
      const out = [0, 0];
      let d = "";
      for (let i = 0; i < 14; i++) {
        for (let j = 0; j < 14; j++) {
          const [x, y] = [low + ((high - low) * (i + 0.5)) / 14, low + ((high - low) * (j + 0.5)) / 14];
          step(x, y, out);
          const [u, v] = [out[0] - x, y - out[1]];
          const long = Math.hypot(u, v);
          if (!(long > 1e-12)) continue;
          const [c, s] = [u / long, v / long];
          const tip = [X(x) + 8 * c, Y(y) + 8 * s];
          d += `M${(X(x) - 8 * c).toFixed(1)} ${(Y(y) - 8 * s).toFixed(1)}L${tip[0].toFixed(1)} ${tip[1].toFixed(1)}`;
          for (const side of [0.5, -0.5]) {
            const turn = Math.atan2(s, c) + side;
            d += `M${tip[0].toFixed(1)} ${tip[1].toFixed(1)}l${(-5 * Math.cos(turn)).toFixed(1)} ${(-5 * Math.sin(turn)).toFixed(1)}`;
          }
        }
      }
      clear(layers.flow, svg("path", { d }));
    };
    let home = null; // the part of the starts that converge
    const drawBasin = () => {
      if (!spec.shade) return;
      const map = basin(problem, limits(), CELLS, rule);
      const cell = SPAN / CELLS;
      const areas = { converged: "", diverged: "", undecided: "" };
      map.forEach((row, i) => {
        for (let j = 0, from = 0; j < CELLS; j++) {
          if (j + 1 < CELLS && row[j + 1] === row[from]) continue;
          const [x, y] = [LEFT + from * cell, SIDE - BOTTOM - (i + 1) * cell];
          areas[row[from]] += `M${x.toFixed(1)} ${y.toFixed(1)}h${((j + 1 - from) * cell).toFixed(1)}v${cell}H${x.toFixed(1)}z`;
          from = j + 1;
        }
      });
      clear(layers.basin, ...Object.entries(areas).map(([status, d]) => svg("path", { class: `dn-${status}`, d })));
      home = map.flat().filter((status) => status === "converged").length / CELLS ** 2;
    };
    const drawStar = () => {
      const [x, y] = target(problem);
      const corner = (k) => {
        const [long, turn] = [k % 2 ? 4 : 10, (k * Math.PI) / 5 - Math.PI / 2];
        return `${X(x) + long * Math.cos(turn)} ${Y(y) + long * Math.sin(turn)}`;
      };
      clear(layers.star, ...(inSquare([x, y]) ? [svg("path", { d: `M${Array.from({ length: 10 }, (_, k) => corner(k)).join("L")}z` })] : []));
    };
    const drawBox = () => {
      if (!spec.box) return;
      const centre = target(problem);
      const reach = Math.max(Math.abs(start[0] - centre[0]), Math.abs(start[1] - centre[1]));
      const corners = [[1, 1], [-1, 1], [-1, -1], [1, -1]];
      const at = (q) => [centre[0] + reach * q[0], centre[1] + reach * q[1]];
      const images = jacobians(problem).map((J) => corners.map((q) => J.map((row) => row[0] * q[0] + row[1] * q[1])));
      const marks = images.flat().filter((q) => Math.max(Math.abs(q[0]), Math.abs(q[1])) > 1 + 1e-9).map(at);
      const closed = (points) => line([...points, points[0]].map(at));
      const square = (size) => closed(corners.map((q) => q.map((entry) => size * entry)));
      clear(layers.box, svg("path", { class: "dn-unit", d: square(1) }),
        svg("path", { class: "dn-tight", d: square(modulus(problem)) }),
        svg("path", { class: "dn-bound", d: square(rowSumBound(problem)) }),
        ...images.map((image, k) => svg("path", { class: `dn-image-${k + 1}`, d: closed(image) })),
        ...marks.filter(inSquare).map(([x, y]) => svg("path", { class: "dn-out", d: `M${X(x) - 6} ${Y(y) - 6}l12 12m0 -12l-12 12` })));
    };
    const drawRun = () => {
      const trail = run.values.slice(0, shown + 1);
      const whole = shown === run.values.length - 1;
      clear(layers.path, svg("path", { class: `dn-${run.status}`, d: line(trail) }));
      layers.path.setAttribute("class", `dn-path dn-${run.status}`);
      if (run.values.length < 80) layers.path.append(...dots(trail));
      else layers.path.append(...dots([trail[trail.length - 1]]));
      clear(layers.ghost, ...(other ? [svg("path", { class: `dn-${other.status}`, d: line(other.values) })] : []));
      if (problem.network) {
        const [x, y] = trail[trail.length - 1];
        const { predicted, real } = arrows(problem, x, y);
        clear(layers.arrows, arrow([x, y], real, "dn-real"), arrow([x, y], predicted, "dn-predicted"));
      }
      handle.style.left = `${(100 * X(start[0])) / SIDE}%`;
      handle.style.top = `${(100 * Y(start[1])) / SIDE}%`;
      handle.setAttribute("aria-label", `Start at ${point(start)}: arrow keys move it`);
      count.textContent = `update ${shown} of ${run.values.length - 1}`;
      step.disabled = whole;
    };

    // The same in words.
    const fate = ({ values, status }, name) => {
      const end = values[values.length - 1];
      const steps = `${values.length - 1} update${values.length === 2 ? "" : "s"}`;
      const goal = target(problem);
      const there = Math.max(Math.abs(end[0] - goal[0]), Math.abs(end[1] - goal[1])) <= 0.01 * (limits()[1] - limits()[0]);
      const verdict = {
        converged: `converged, after ${steps}, ${there ? "at the star" : `at ${point(end)}, which is not the star`}`,
        diverged: `diverged: beyond ${short(rule.bound)} after ${steps}`,
        undecided: `undecided after ${steps}: ${goesRound({ values, status }) ? "it goes round" : "it is still moving"}`,
      }[status];
      return html("span", {}, name, html("strong", { class: `dn-${status}` }, verdict), ". ");
    };
    const say = () => {
      const said = [];
      if (shown < run.values.length - 1) {
        const here = run.values[shown];
        const favourite = problem.actions === 2 ? ` The greedy action is the ${["first", "second"][greedy(problem, here)[0]]}.` : "";
        said.push(`After ${shown} update${shown === 1 ? "" : "s"} from ${point(start)}: ${point(here)}.${favourite} `);
      } else {
        said.push(fate(run, `From ${point(start)}: `));
        if (other) said.push(fate(other, `Dotted, ${problem.batch ? "with the kernel as it is" : "undone on both"}: `));
      }
      if (spec.shade && home !== null) said.push(`Of the starts in this square ${Math.round(100 * home)} % converge. `);
      if (spec.box) {
        const [factor, bound] = [modulus(problem), rowSumBound(problem)];
        const wide = (size) => `${number(size, 3)} times as wide`;
        said.push(`The images of the box ${factor < 1 ? "lie inside it" : factor > 1 ? "stick out of it" : "reach its edge"}: `
          + (bound > factor + 1e-9
            ? `the thin square round them, the exact modulus, is ${wide(factor)}, the dotted one, the row-sum bound, ${number(bound, 3)} times. `
            : `the dotted square round them is ${wide(bound)}, and no smaller one would do. `));
      }
      if (problem.network) {
        const here = run.values[shown];
        const full = arrows(problem, ...here);
        const half = arrows({ ...problem, alpha: problem.alpha / 2 }, ...here);
        const move = (q) => `(${short(q[0] - here[0])}, ${short(q[1] - here[1])})`;
        said.push(`The next step: predicted ${move(full.predicted)}, real ${move(full.real)}, off by ${short(full.missed)}; `
          + `at half the step size off by ${short(half.missed)}.`);
      }
      clear(words, ...said);
    };

    // What happens when something is touched.
    const pause = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    };
    const compute = () => {
      run = iterate(problem, start, rule);
      const plain = { ...problem, batch: null };
      other = spec.undo ? iterate(problem.batch ? plain : { ...problem, batch: [0, 1] }, start, rule) : null;
    };
    const refresh = (part = spec.problems[chosen].network ? "begin" : "end") => {
      pause();
      compute();
      shown = part === "begin" ? 0 : run.values.length - 1;
      drawBox();
      drawRun();
      fields.forEach((field, i) => { if (document.activeElement !== field) field.value = Number(start[i].toFixed(3)); });
      say();
    };
    const moveTo = (x, y, then) => {
      const [low, high] = limits();
      start = [x, y].map((value) => Math.min(Math.max(value, low), high));
      refresh(then);
    };
    const begin = () => {
      if (calm) return refresh("end");
      pause();
      if (shown === run.values.length - 1) shown = 0;
      play.textContent = "Pause";
      const frames = (SECONDS * 1000) / 40;
      const pace = Math.max(1, (run.values.length - 1) / frames);
      let exact = shown;
      timer = setInterval(() => {
        if (!root.isConnected) return pause();
        exact += run.values.length < 40 ? 0.2 : pace;
        shown = Math.min(run.values.length - 1, Math.floor(exact));
        drawRun();
        if (shown === run.values.length - 1) {
          pause();
          say();
        }
      }, 40);
    };

    const button = (text, act) => {
      const made = html("button", { type: "button" }, text);
      made.addEventListener("click", act);
      return made;
    };
    const play = button("Play", () => (timer ? (pause(), say()) : begin()));
    const step = button("One update", () => {
      pause();
      shown = Math.min(shown + 1, run.values.length - 1);
      drawRun();
      say();
    });
    const back = button("To the start", () => refresh("begin"));
    const reset = button("As in the book", () => choose(chosen));
    const fields = ["Q₁", "Q₂"].map((name, i) => {
      const field = html("input", { type: "number", step: "any", "aria-label": `Start, ${name}` });
      field.addEventListener("change", () => {
        const value = Number.parseFloat(field.value);
        if (Number.isFinite(value)) moveTo(...(i ? [start[0], value] : [value, start[1]]));
        field.value = Number(start[i].toFixed(3));
      });
      return field;
    });
    const knobs = html("div", { class: "dn-knobs" });
    const settle = () => { // the problem, from the sliders and menus
      const given = spec.problems[chosen];
      problem = given;
      for (const [name, { slider, output, value }] of Object.entries(positions)) {
        const now = value(Number(slider.value));
        if (Number(slider.value) !== 0) problem = SLIDERS[name].put(problem, now);
        output.textContent = short(now);
        slider.setAttribute("aria-valuetext", short(now));
      }
      if (spec.undo && undone.value !== "no") problem = { ...problem, batch: BATCHES[undone.value] };
      drawAxes();
      drawFlow();
      drawBasin();
      drawStar();
      refresh();
    };
    let asked = 0;
    const soon = () => { // a slider may ask more often than the page can draw
      cancelAnimationFrame(asked);
      asked = requestAnimationFrame(settle);
    };
    const labelled = (text, control, ...more) => html("label", {}, html("span", {}, text), control, ...more);
    const menu = (options, act) => {
      const made = html("select", {}, ...options.map(([value, text]) => html("option", { value }, text)));
      made.addEventListener("change", act);
      return made;
    };
    const undone = menu([["no", "as it is"], ["both", "undone on both"], ["first", "undone on the first"],
      ["second", "undone on the second"]], soon);
    const choose = (which) => {
      chosen = which;
      positions = {};
      undone.value = spec.undo || "no";
      clear(knobs);
      for (const name of spec.sliders) {
        const given = spec.problems[chosen];
        if (name === "share" && !given.rho) continue;
        if (name === "coupling" && !(given.kernel && given.kernel[0][1] === given.kernel[1][0])) continue;
        const { low, high, value } = range(SLIDERS[name], given);
        const slider = html("input", { type: "range", min: low, max: high, step: 1, value: 0 });
        slider.value = 0;
        const output = html("output");
        slider.addEventListener("input", soon);
        positions[name] = { slider, output, value };
        knobs.append(labelled(SLIDERS[name].label, slider, output));
      }
      if (spec.undo) knobs.append(labelled("the kernel", undone));
      start = [...spec.problems[chosen].start];
      settle();
    };

    // Mouse and finger, then keys.
    const at = (event) => {
      const box = picture.getBoundingClientRect();
      const [low, high] = limits();
      const part = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((p) => p * SIDE);
      return [low + ((part[0] - LEFT) / SPAN) * (high - low), low + ((SIDE - BOTTOM - part[1]) / SPAN) * (high - low)];
    };
    let held = false, dragged = false;
    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      held = true;
      dragged = false;
      stage.setPointerCapture(event.pointerId);
      if (event.target !== handle) moveTo(...at(event), calm ? "end" : "begin");
      handle.focus({ preventScroll: true });
      event.preventDefault();
    });
    stage.addEventListener("pointermove", (event) => {
      if (!held) return;
      dragged = true;
      moveTo(...at(event));
    });
    const release = () => {
      if (held && !dragged) begin();
      held = false;
    };
    stage.addEventListener("pointerup", release);
    stage.addEventListener("pointercancel", () => { held = false; });
    handle.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
      if (event.key === "Enter" || event.key === " ") begin();
      else if (move) {
        const size = (limits()[1] - limits()[0]) / (event.shiftKey ? 8 : 40);
        moveTo(start[0] + move[0] * size, start[1] + move[1] * size);
      } else return;
      event.preventDefault();
    });

    picture.setAttribute("aria-label", spec.alt);
    const head = spec.problems.length > 1
      ? [html("div", { class: "dn-knobs" }, labelled("the problem", menu(spec.problems.map(({ name }, k) => [k, name]),
        (event) => choose(Number(event.target.value)))))] : [];
    const bar = html("div", { class: "dn-bar" }, play, step, back, reset, count);
    const from = html("div", { class: "dn-bar" }, html("span", {}, "Start"), ...fields);
    root.classList.add("dn-alive");
    clear(root, ...head, html("div", { class: "dn-two" }, stage, html("div", {}, words, bar, from, knobs)));
    choose(0);
    return () => { pause(); cancelAnimationFrame(asked); };
  };

  const mountAll = (within) => {
    for (const root of within.querySelectorAll(".dn-plane[data-plane]:not(.dn-alive)")) {
      mount(root, JSON.parse(root.dataset.plane));
    }
  };
  // In JupyterLab the parts come in a model.
  const render = ({ model, el }) => {
    const root = html("div", { class: "dn-plane" });
    el.append(root);
    return mount(root, JSON.parse(model.get("spec")));
  };
  if (typeof document !== "undefined" && document.currentScript && document.currentScript.src) {
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => mountAll(document));
    else mountAll(document);
  }
  return { arrows, basin, forward, goesRound, greedy, iterate, jacobians, matrix, modulus, mountAll, networkKernel, placed,
    render, rowSumBound, stepper, target };
})();
