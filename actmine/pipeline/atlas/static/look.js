// A picture of one's own: dropped or pasted anywhere on the page, it is sent as the form would; a page that waits asks again.
(() => {
  "use strict";
  const form = document.querySelector("[data-drop]");
  const help = form && form.querySelector("[data-help]");
  const say = (words) => {
    let told = form.querySelector("[role=alert]");
    if (!told) {
      told = document.createElement("p");
      told.className = "absent";
      told.setAttribute("role", "alert");
      help.before(told);
    }
    told.textContent = words;
  };
  function send(files) {
    const file = [...files].find((each) => each.type.startsWith("image/")) || files[0];
    if (!file) { say("There is no picture in what was dropped."); return; }
    if (file.size > Number(form.dataset.most)) { say(`This file is larger than ${Math.floor(Number(form.dataset.most) / 1048576)} MB.`); return; }
    const held = new DataTransfer();
    held.items.add(file);
    form.querySelector("[data-file]").files = held.files;
    form.requestSubmit();
  }
  if (form) {
    for (const each of form.querySelectorAll("[data-scripted]")) each.hidden = false;
    const holds = (event) => [...(event.dataTransfer ? event.dataTransfer.types : [])].includes("Files");
    let depth = 0;
    const over = (by) => { depth = Math.max(depth + by, 0); document.body.classList.toggle("dropping", depth > 0); };
    addEventListener("dragenter", (event) => { if (holds(event)) over(1); });
    addEventListener("dragleave", (event) => { if (holds(event)) over(-1); });
    addEventListener("dragover", (event) => { if (holds(event)) event.preventDefault(); });
    addEventListener("drop", (event) => {
      if (!holds(event)) return;
      event.preventDefault();
      over(-depth);
      send(event.dataTransfer.files);
    });
    addEventListener("paste", (event) => {
      const files = event.clipboardData ? event.clipboardData.files : [];
      if (files.length) { event.preventDefault(); send(files); }
    });
    form.addEventListener("submit", () => { if (window.atlasSay) window.atlasSay("The picture is sent."); });
  }

  // under way: asks again until the answer is there
  const pending = document.querySelector("[data-pending]");
  async function ask() {
    const answer = await fetch(location.href).catch(() => null);
    if (answer && answer.status === 202) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const state = page.querySelector("[data-pending]");
      if (state && state.textContent !== pending.textContent) pending.textContent = state.textContent;
      setTimeout(ask, 500);
    } else location.reload();
  }
  if (pending) setTimeout(ask, 300);
})();
