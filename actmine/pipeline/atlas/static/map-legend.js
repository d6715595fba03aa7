// What the colours of a map are, and the legend that says so; its entries can be chosen.
window.atlasMapLegend = (map, select, place, dark, chosen) => {
  "use strict";
  const REST = "other labels or none";
  const count = map.count, { layer, label } = map.of;
  const made = (name, words = "", attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = words;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const short = (value) => value !== value ? "" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));

  // as pixels have colours: blue, green, red from high to low
  const packed = (text) => 0xff000000 | parseInt(text.slice(5, 7), 16) << 16 | parseInt(text.slice(3, 5), 16) << 8 | parseInt(text.slice(1, 3), 16);
  const plain = (text) => `#${(text.match(/\d+/g) || [0, 0, 0]).slice(0, 3).map((part) => Number(part).toString(16).padStart(2, "0")).join("")}`;
  const ramp = () => map.colours.ramp[dark.matches ? 1 : 0], other = () => map.colours.other[dark.matches ? 1 : 0];
  const measure = () => map.measures.find((each) => each.name === select.value);
  const kind = new Int32Array(count), colours = new Uint32Array(count);
  let table = [], around = {};

  function colour() {
    const steps = ramp();
    if (select.value === "layer") {
      const last = Math.max(map.layers.length - 1, 1);
      table = map.layers.map((_, at) => steps[Math.round(at / last * (steps.length - 1))]);
      kind.set(layer);
    } else if (select.value === "label") {
      const at = new Map(map.commonest.map(([which], rank) => [which, rank]));
      table = [...map.colours.kinds.slice(0, map.commonest.length), other()];
      for (let i = 0; i < count; i++) kind[i] = at.has(label[i]) ? at.get(label[i]) : map.commonest.length;
    } else {
      const values = map.of[select.value], [low, , high] = measure().scale;
      table = [...steps, other()];
      for (let i = 0; i < count; i++)
        kind[i] = values[i] !== values[i] ? steps.length : Math.round(Math.min(1, Math.max(0, (values[i] - low) / (high - low || 1))) * (steps.length - 1));
    }
    const known = Uint32Array.from(table.map(packed));
    for (let i = 0; i < count; i++) colours[i] = known[kind[i]];
    const body = getComputedStyle(document.body), paper = plain(body.backgroundColor);
    const accent = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
    around = { paper: packed(paper), paper_css: paper, faded: packed(other()), ink: plain(body.color), accent, css_colour: (i) => table[kind[i]] };
  }

  // of each colour what it stands for; none where it stands for a number
  const names = () => measure() ? [] : select.value === "layer" ? map.layers.map((each) => each.name) : [...map.commonest.map(([which]) => map.labels[which]), REST];

  function swatch(text) {
    const space = "http://www.w3.org/2000/svg";
    const drawn = document.createElementNS(space, "svg"), dot = document.createElementNS(space, "circle");
    for (const [key, value] of [["viewBox", "0 0 12 12"], ["width", 12], ["height", 12], ["aria-hidden", "true"]]) drawn.setAttribute(key, value);
    for (const [key, value] of [["cx", 6], ["cy", 6], ["r", 5], ["fill", text]]) dot.setAttribute(key, value);
    drawn.append(dot);
    return drawn;
  }
  function breakable(name) {
    const span = made("span");
    name.split(/(?<=[._/])/).forEach((part) => span.append(part, document.createElement("wbr")));
    return span;
  }
  function scale(its, lacking) {
    const bar = made("canvas", "", { "aria-hidden": "true" }), steps = ramp(), ends = made("p", "", { class: "map-scale" });
    bar.width = steps.length; bar.height = 1;
    const pen = bar.getContext("2d");
    steps.forEach((each, at) => { pen.fillStyle = each; pen.fillRect(at, 0, 1, 1); });
    ends.append(...its.scale.map((each) => made("span", short(each))));
    const found = [bar, ends, made("p", "2nd, 50th and 98th percentile", { class: "quiet" })];
    if (lacking) {
      const line = made("p", `${lacking.toLocaleString("en")} not measured`, { class: "quiet" });
      line.prepend(swatch(other()), " ");
      found.push(line);
    }
    return found;
  }
  function explain() {
    const counts = new Array(table.length).fill(0), list = made("ul");
    for (let i = 0; i < count; i++) counts[kind[i]]++;
    const heading = made("h2", select.selectedOptions[0].textContent), its = measure();
    if (its) { place.replaceChildren(heading, ...scale(its, counts[table.length - 1])); return; }
    names().forEach((each, at) => {
      if (!counts[at]) return;
      const button = made("button", "", { type: "button", "aria-pressed": "false", title: each }), item = made("li");
      button.append(swatch(table[at]), breakable(each), made("small", counts[at].toLocaleString("en")));
      button.addEventListener("click", () => chosen(each));
      item.append(button);
      list.append(item);
    });
    place.replaceChildren(heading, list);
  }
  const press = (named) => place.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(button.title === named)));

  return { colour, explain, press, names, short, kind, colours, scene: () => around };
};
