// Keys: the page's own table of them says which does what. They never fire while something is typed.
(() => {
  "use strict";
  const one = (selector) => document.querySelector(selector);
  const seen = (element) => element && element.getClientRects().length > 0;
  const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
  const table = one("[data-keys]");
  const status = one("[data-said]");
  const say = (words) => { status.textContent = ""; requestAnimationFrame(() => { status.textContent = words; }); };
  const rows = [...table.querySelectorAll("[data-stroke]")];
  for (const row of rows) { // what the page has no use for is not told
    const selector = row.dataset.does.replace(/^\S+\s?/, "");
    row.hidden = Boolean(selector) && !one(selector);
  }
  for (const group of table.querySelectorAll("[data-group]"))
    group.hidden = ![...group.querySelectorAll("[data-does]:not([data-does=''])")].some((row) => !row.hidden);

  for (const told of document.querySelectorAll(".keys > span")) {
    const cap = told.querySelector("kbd").textContent;
    const its = rows.find((row) => row.dataset.stroke === cap);
    if (its) told.hidden = its.hidden;
  }

  const help = document.createElement("dialog");
  help.className = "help";
  help.setAttribute("aria-label", "Keys");
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => help.close());
  help.addEventListener("click", (event) => { if (event.target === help) help.close(); });
  const place = table.parentElement; // a <details>, which the dialog stands for
  function tell() {
    help.append(table, close);
    if (!help.isConnected) document.body.append(help);
    help.showModal();
  }
  help.addEventListener("close", () => place.append(table));
  place.addEventListener("click", (event) => { if (event.target.closest("summary")) { event.preventDefault(); tell(); } });

  const step = (selector, by) => {
    const found = all(selector);
    if (!found.length) return false;
    const at = found.indexOf(document.activeElement);
    const next = found[at < 0 ? (by > 0 ? 0 : found.length - 1) : Math.min(Math.max(at + by, 0), found.length - 1)];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
    return true;
  };
  const verbs = {
    help: () => { tell(); return true; },
    focus: (selector) => {
      const field = one(selector);
      if (field) { field.focus(); field.scrollIntoView({ block: "nearest" }); }
      return Boolean(field);
    },
    follow: (selector) => {
      const link = one(selector);
      if (link) location.assign(link.href);
      return Boolean(link);
    },
    rise: (selector) => window.scrollY <= 0 && verbs.follow(selector),
    press: (selector) => {
      const found = one(selector);
      if (!found) return false;
      found.click();
      if (found.type === "checkbox") say(`${found.parentElement.firstChild.nextSibling.textContent.trim()}: ${found.checked ? "on" : "off"}`);
      return true;
    },
    next: (selector) => step(selector, 1),
    back: (selector) => step(selector, -1),
    rows: (selector) => {
      const found = [...document.querySelectorAll(`${selector} > details`)];
      const open = found.some((row) => !row.open);
      found.forEach((row) => { row.open = open; });
      if (found.length) say(open ? "all rows open" : "all rows closed");
      return found.length > 0;
    },
  };
  let before = "", when = 0;
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented || event.isComposing) return;
    if (event.target.closest("input:not([type=checkbox]), select, textarea, [contenteditable]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (one("dialog[open]")) return; // has keys of its own
    const pressed = event.shiftKey && event.key.length > 1 ? `Shift+${event.key}` : event.key;
    const both = event.timeStamp - when < 1500 && before ? `${before} ${pressed}` : "";
    const row = rows.find((each) => each.dataset.stroke === both) || rows.find((each) => each.dataset.stroke === pressed);
    [before, when] = [pressed, event.timeStamp];
    if (!row || !row.dataset.does) return;
    const [verb, ...rest] = row.dataset.does.split(" ");
    if (verbs[verb](rest.join(" "))) { event.preventDefault(); before = ""; }
  });
  window.atlasSay = say;
})();
