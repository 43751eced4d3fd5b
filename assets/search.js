// The search of pages that pandoc made. The index is loaded when the field is used for the first time, from disk too.
(() => {
  const field = document.getElementById("nn-search"), list = document.getElementById("nn-found-list");
  if (!field) return;
  let index = null;
  const split = (text) => text.toLowerCase().split(/[^a-z0-9_.]+/).filter(Boolean);
  const parts = (text) => split(text.replace(/([a-z])([A-Z])/g, "$1 $2").replace(/[_.]/g, " "));
  const prepared = () => index = index || window.nnIndex.map(([title, page, address, kind, words]) =>
    ({title, page, address, kind, whole: split(title), names: [...split(title), ...parts(title)], above: parts(page),
      words: words.split(" ")}));
  const stem = (word) => word.length > 4 ? word.replace(/(?:s|ing|ed)$/, "") : word;
  const near = (word, others) => others.some((other) => other === word) ? 1 : others.some((other) => other.startsWith(stem(word))) ? 0.6 : 0;
  const score = (entry, query) => {
    let sum = 0;
    for (const word of query) {
      const best = Math.max(10 * near(word, entry.names), 3 * near(word, entry.above), 2 * near(word, entry.words));
      if (!best) return 0;
      sum += best;
    }
    const asked = query.join(" "), title = entry.whole.join(" "), bare = title.replace(/^\d\d /, "");
    if (asked === bare) sum += 30;
    else if (query.every((word) => near(word, entry.names))) sum += 10 * query.length / Math.max(entry.whole.length, query.length);
    const head = entry.kind === "lesson" && !entry.address.includes("#") ? 1.6 : 1;
    return sum * head * {lesson: 1.5, reference: 1.1, page: 0.8}[entry.kind];
  };
  const show = () => {
    const query = split(field.value);
    list.replaceChildren();
    field.setAttribute("aria-expanded", query.length > 0);
    if (!query.length) return;
    const found = prepared().map((entry) => [score(entry, query), entry]).filter(([points]) => points)
      .sort((a, b) => b[0] - a[0]).slice(0, 12);
    found.forEach(([, entry]) => {
      const link = Object.assign(document.createElement("a"), {href: entry.address, textContent: entry.title});
      if (entry.page !== entry.title) link.append(Object.assign(document.createElement("small"), {textContent: entry.page}));
      const item = document.createElement("li");
      item.append(link);
      list.append(item);
    });
    if (!found.length) list.append(Object.assign(document.createElement("li"), {textContent: "Nothing found: try fewer words."}));
  };
  const load = () => {
    if (window.nnIndex || document.getElementById("nn-index")) return;
    const script = Object.assign(document.createElement("script"), {id: "nn-index", src: "assets/search-index.js"});
    script.addEventListener("load", show);
    document.head.append(script);
  };
  field.addEventListener("focus", load);
  field.addEventListener("input", () => { load(); if (window.nnIndex) show(); });
  field.addEventListener("keydown", (event) => {
    const first = list.querySelector("a");
    if (event.key === "Enter" && first) location.href = first.href;
    if (event.key === "ArrowDown" && first) { event.preventDefault(); first.focus(); }
    if (event.key === "Escape") { field.value = ""; show(); }
  });
  list.addEventListener("keydown", (event) => {
    const links = [...list.querySelectorAll("a")], at = links.indexOf(document.activeElement);
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    (links[at + step] || field).focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) { event.preventDefault(); field.focus(); }
  });
})();
