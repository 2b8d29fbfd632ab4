// Judges a choice or a few numbers without Python, in the words of `grading.check`. tools/exercises.py writes the data that it reads;
// reading words is that of divergence_notes/grading/phrases.py, comparing that of comparison.py, and what is said that of kinds.py.
globalThis.judge = (() => {
  // A number as Python writes it: f"{value:.6g}", repr(value), repr(text), reprlib.repr(text).
  const general = (value, digits) => {
    if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf").toLowerCase();
    if (value === 0) return Object.is(value, -0) ? "-0" : "0";
    let [mantissa, exponent] = Math.abs(value).toExponential(digits - 1).split("e");
    const [exact, size] = Math.abs(value).toExponential(100).split("e");
    const down = exact.slice(0, digits + 1);
    if (/^50*$/.test(exact.slice(digits + 1)) && /[02468]$/.test(down)) [mantissa, exponent] = [down, size]; // half to even
    const all = mantissa.replace(".", ""), at = Number(exponent), sign = value < 0 ? "-" : "";
    const cut = (text) => (text.includes(".") ? text.replace(/\.?0*$/, "") : text);
    if (at < -4 || at >= digits) return `${sign}${cut(mantissa)}e${at < 0 ? "-" : "+"}${String(Math.abs(at)).padStart(2, "0")}`;
    return sign + cut(at < 0 ? `0.${"0".repeat(-at - 1)}${all}` : `${all.slice(0, at + 1)}.${all.slice(at + 1)}`);
  };
  const toldApart = (...numbers) => {
    const written = [6, 9, 12, 17].map((digits) => numbers.map((number) => general(number, digits)));
    return written.find(([first, second]) => first !== second) ?? written[3];
  };
  const writtenOut = (value) => {
    const size = Math.abs(value);
    if (!Number.isFinite(value)) return general(value, 6);
    if (value === 0 || (size >= 1e-4 && size < 1e16)) return String(value) === String(Math.trunc(value)) ? `${general(value, 17)}.0` : String(value);
    return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
  };
  const quoted = (letters) => {
    const quote = letters.includes("'") && !letters.includes('"') ? '"' : "'";
    return quote + letters.map((letter) => {
      if (letter === "\\" || letter === quote) return `\\${letter}`;
      const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[letter];
      if (short || letter === " " || !/[\p{C}\p{Z}]/u.test(letter)) return short ?? letter;
      const code = letter.codePointAt(0), [mark, size] = code < 256 ? ["x", 2] : code < 65536 ? ["u", 4] : ["U", 8];
      return `\\${mark}${code.toString(16).padStart(size, "0")}`;
    }).join("") + quote;
  };
  const shortened = (text) => {
    const letters = [...text], whole = [...quoted(letters.slice(0, 30))];
    if (whole.length <= 30) return whole.join("");
    const both = [...quoted([...letters.slice(0, 13), ...letters.slice(Math.max(0, letters.length - 14))])];
    return `${both.slice(0, 13).join("")}...${both.slice(-14).join("")}`;
  };

  // Numbers, + - * / ** ( ) and sqrt, exp, log: 1/19, 9 - sqrt(80). Several stand in brackets or with commas. Undefined for anything else.
  const FUNCTIONS = { sqrt: Math.sqrt, exp: Math.exp, log: Math.log };
  const calculated = (text) => {
    const parts = text.replaceAll("\u2212", "-").match(/(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|\*\*|[a-z]+|\S/gi) ?? [];
    let at = 0;
    const eat = (...signs) => (signs.includes(parts[at]) ? parts[at++] : "");
    const sum = () => {
      let value = product();
      for (let sign; (sign = eat("+", "-"));) value = sign === "+" ? value + product() : value - product();
      return value;
    };
    const product = () => {
      let value = signed();
      for (let sign; (sign = eat("*", "/"));) value = sign === "*" ? value * signed() : value / signed();
      return value;
    };
    const signed = () => (eat("-") ? -signed() : eat("+") ? signed() : power());
    const power = () => {
      const value = atom();
      return eat("**", "^") ? value ** signed() : value;
    };
    const atom = () => {
      const name = eat(...Object.keys(FUNCTIONS));
      if (name && parts[at] !== "(") throw new SyntaxError(text);
      if (eat("(")) {
        const value = sum();
        if (!eat(")")) throw new SyntaxError(text);
        return name ? FUNCTIONS[name](value) : value;
      }
      if (!/^[\d.]*\d/.test(parts[at] ?? "")) throw new SyntaxError(text);
      return Number(parts[at++]);
    };
    const value = sum();
    if (at < parts.length) throw new SyntaxError(text);
    return value;
  };
  const several = (text) => {
    let depth = 0;
    const parts = [""];
    for (const letter of text) {
      depth += "([".includes(letter) - ")]".includes(letter);
      if (",;".includes(letter) && depth === 0) parts.push("");
      else parts[parts.length - 1] += letter;
    }
    return parts;
  };
  const read = (text) => {
    const [, open, within, close] = /^([([])([^]*)([)\]])$/.exec(text) ?? [];
    const fits = open && (open === "(") === (close === ")") && several(`${text},`).length === 2; // the two belong together
    if (fits && !within.trim()) return [];
    const inner = fits ? several(within) : [];
    const many = fits && (open === "[" || inner.length > 1) ? inner : several(text);
    const list = many.length > 1 || (fits && open === "[");
    if (list && many.length > 1 && !many[many.length - 1].trim()) many.pop(); // (1, 2,)
    try {
      const numbers = many.map(calculated);
      return list ? numbers : numbers[0];
    } catch {
      return undefined;
    }
  };

  // The words and numbers of a phrase, in small letters, without what carries nothing.
  const FILLERS = new Set(["and", "answer", "i", "is", "it", "letter", "of", "only", "option", "the", "them", "think"]);
  const words = (text) => {
    const found = text.toLowerCase().replaceAll("ß", "ss").replace(/(\p{Nd})[\s,_'](?=\p{Nd}{3}(?!\p{Nd}))/gu, "$1")
      .replaceAll("\u2212", "-").replace(/(^|[^\p{L}\p{N}_])minus +(?=\p{Nd})/gu, "$1-").replace(/(^|[^\p{L}\p{N}_])plus +(?=\p{Nd})/gu, "$1+")
      .replaceAll(">", " more than ").replaceAll("<", " less than ").replaceAll("\0", " ").replace(/(^|[^\p{L}\p{N}_)\]])-(?=\p{Nd})/gu, "$1\0")
      .match(/\0?\p{Nd}+(?:\.\p{Nd}+)?|[\p{L}\p{Nl}\p{No}]+/gu) ?? []; // 1-2 are two numbers
    const telling = found.filter((word) => !FILLERS.has(word)), kept = telling.length ? telling : found;
    return kept.filter((word, at) => word !== "a" || !/^.\p{L}+$/u.test(kept[at + 1] ?? ""));
  };
  const same = (some, others) => some.length === others.length && some.every((word, at) => word === others[at]);
  const named = (said, ways, number) => Object.keys(ways).find((option) => [option, ...ways[option]].some((way) => {
    const meant = words(way), once = new Set(said);
    const alike = once.size === said.length && said.length === meant.length && new Set([...said, ...meant]).size === said.length
      && new Set(meant).size === once.size;
    return same(said, meant) || alike || same(said, [...words(option), ...meant]) || (way[0] === ">" && number > Number(way.slice(1)));
  }));

  const verdict = (state, message, known = true) => ({ state, message, known });
  const fault = (message) => verdict("not yet", `Your answer ${message.replace(/\.+$/, "")}.`, false);

  const choice = ({ right, options }, text) => {
    const plain = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i.test(text), whole = /^[+-]?\d+$/.test(text);
    const written = whole ? BigInt(text.replace("+", "")).toString() : plain ? general(Number(text) + 0, 15) : text;
    const ways = Object.fromEntries(Object.entries(options).map(([option, { words }]) => [option, words]));
    const endless = plain && !Number.isFinite(Number(text));
    const given = endless ? undefined : named(words(written), ways, plain ? Number(text) : NaN);
    if (given !== undefined) return verdict(given === right ? "right" : "not yet", options[given].said);
    const listed = Object.entries(ways).map(([option, [way]]) => (way === undefined ? option : `${option} (${way})`)).join(", ");
    return fault(`must be one of ${listed}, and is ${whole ? written : plain ? writtenOut(Number(text)) : shortened(text)}`);
  };

  const value = ({ shape, right, rtol, insight, hint, phrases, mistakes }, text, tell) => {
    let answer = read(text);
    if (answer === undefined && Object.keys(phrases).length) {
      const said = named(words(text), phrases, NaN) ?? text.replaceAll("\u2212", "-");
      if (!/^[+-]?[0-9]+(\.[0-9]*)?$/.test(said)) return fault(`must be a number, and is ${shortened(text)}`);
      answer = Number(said);
    }
    if (answer === undefined) return fault(`must be real numbers, and is text: ${shortened(text)}`);
    const found = [answer].flat(), form = Array.isArray(answer) ? [found.length] : [];
    const written = (sizes) => (sizes.length ? `(${sizes},)` : "()");
    const place = (at) => (shape.length ? `entry ${at}: ` : "");
    if (written(form) !== written(shape)) return fault(`must have ${shape.length ? `shape ${written(shape)}` : "one number"}, and has shape ${written(form)}`);
    const infinite = found.findIndex((number) => !Number.isFinite(number));
    if (infinite >= 0) return fault(`must be finite: ${place(infinite)}${general(found[infinite], 6)}`);
    const close = (others) => {
      const scale = Math.max(...others.map(Math.abs));
      return found.map((number, at) => Math.abs(number - others[at]) <= rtol * scale + 1e-12);
    };
    const off = close(right).indexOf(false);
    if (off < 0) return verdict("right", insight);
    const mistake = mistakes.find(({ wrong }) => close(wrong).every(Boolean));
    const where = shape.length ? `entry ${off}` : "your number", side = found[off] > right[off] ? "large" : "small";
    const [ours, theirs] = toldApart(found[off], right[off]);
    const told = tell ? ` To tell you: ${place(off)}${ours} where ${theirs} is right.` : "";
    const helped = !mistake && !tell && hint ? ` ${hint} (With \`tell=True\` the check tells you.)` : "";
    return verdict("not yet", `${mistake ? mistake.said : `Not right: ${where} is too ${side}.`}${told}${helped}`);
  };

  // What `grading.check` says of a typed answer: the state ("right", "not yet", "open"), the message, and whether it is an answer at all.
  return (exercise, text, tell = false) => {
    const typed = text.trim();
    if (!typed) return verdict("open", "Nothing here yet.", false);
    if (exercise.kind === "value") return value(exercise, typed, tell);
    const said = choice(exercise, typed);
    return said.known && said.state === "not yet" && tell ? verdict(said.state, `${said.message} Right is ${exercise.right}.`) : said;
  };
})();
