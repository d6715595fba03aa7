// A place in an image, clicked or gone to by arrow keys: the server lists what fires there, and the address holds it.
(() => {
  "use strict";
  const stage = document.querySelector("[data-crosshair]");
  if (!stage) return;
  const [width, height] = stage.dataset.size.split(" ").map(Number);
  const picture = stage.querySelector("img");
  const cross = stage.querySelector("[data-cross]");
  const form = document.querySelector("[data-aim]");
  const space = "http://www.w3.org/2000/svg";
  let [x, y] = [width >> 1, height >> 1];
  const asked = /^(\d+),(\d+)$/.exec(new URLSearchParams(location.search).get("at") || "");
  if (asked) [x, y] = [Number(asked[1]), Number(asked[2])];
  stage.tabIndex = 0;
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-roledescription", "crosshair");
  stage.setAttribute("aria-label", "A place in the image: arrow keys move the crosshair, Enter lists the units that fire there");

  function draw() {
    cross.replaceChildren(...["edge", "box"].map((kind) => {
      const path = document.createElementNS(space, "path");
      path.setAttribute("class", kind);
      path.setAttribute("d", `M${x + 0.5} 0V${height}M0 ${y + 0.5}H${width}`);
      return path;
    }));
    form.elements.x.value = x;
    form.elements.y.value = y;
  }
  let latest = 0;
  async function list() {
    draw();
    const address = new URL(location.href);
    for (const name of ["x", "y"]) address.searchParams.delete(name);
    address.searchParams.set("at", `${x},${y}`);
    address.hash = "";
    const number = ++latest;
    const answer = await fetch(address).catch(() => null);
    const text = answer && answer.ok ? await answer.text() : "";
    if (number !== latest) return; // another place has been asked for meanwhile
    const page = text && new DOMParser().parseFromString(text, "text/html");
    const found = page && page.querySelector("[data-at]");
    if (!found) { window.atlasSay("The atlas does not answer."); return; }
    history.replaceState(null, "", address.href.replace("%2C", ","));
    document.querySelector("[data-at]").replaceWith(document.adoptNode(found));
    const boxes = page.querySelectorAll("[data-boxes] .named");
    for (const box of boxes) if (!document.getElementById(box.id)) cross.before(document.adoptNode(box));
    document.dispatchEvent(new CustomEvent("atlas-marks", { detail: found }));
    const heading = found.querySelector("h2");
    if (heading) window.atlasSay(heading.textContent);
  }
  stage.addEventListener("click", (event) => {
    const place = picture.getBoundingClientRect();
    x = Math.min(Math.max(Math.floor((event.clientX - place.left) / place.width * width), 0), width - 1);
    y = Math.min(Math.max(Math.floor((event.clientY - place.top) / place.height * height), 0), height - 1);
    list();
  });
  stage.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); list(); return; }
    if (!move) return;
    event.preventDefault(); // also keeps the page's own keys from turning it
    const far = Math.max(1, Math.round(Math.max(width, height) / (event.shiftKey ? 8 : 40)));
    x = Math.min(Math.max(x + move[0] * far, 0), width - 1);
    y = Math.min(Math.max(y + move[1] * far, 0), height - 1);
    draw();
    window.atlasSay(`${x}, ${y}`);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    [x, y] = [Number(form.elements.x.value), Number(form.elements.y.value)];
    list();
  });
  stage.addEventListener("focus", () => { if (!cross.firstChild && stage.matches(":focus-visible")) draw(); });
})();
