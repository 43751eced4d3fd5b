// What Quarto's pages and pandoc's share. Nothing here is needed to read a page.
(() => {
  // A picture with sliders is one thing with a name.
  document.querySelectorAll(".nn-explore").forEach((explorer) => {
    explorer.setAttribute("role", "group");
    const title = explorer.querySelector(".nn-head strong");
    explorer.setAttribute("aria-label", (title && title.textContent) || "A picture with sliders");
  });
  // A thin space between a function and its argument: log p.
  document.querySelectorAll("math mo").forEach((sign) => {
    const next = sign.nextElementSibling;
    if (sign.textContent !== "\u2061" || !next || (next.localName === "mo" && /[([{]/.test(next.textContent))) return;
    const space = document.createElementNS("http://www.w3.org/1998/Math/MathML", "mspace");
    space.setAttribute("width", "0.17em");
    sign.after(space);
  });
  // On Quarto's pages: a way past the menus, and the contents list on phones.
  const text = document.getElementById("quarto-document-content");
  if (!text) return;
  document.body.prepend(Object.assign(document.createElement("a"),
    {className: "nn-skip", href: "#quarto-document-content", textContent: "Skip to the text"}));
  const list = document.querySelector("#TOC > ul"), title = document.getElementById("title-block-header");
  if (list && title) {
    const box = Object.assign(document.createElement("details"), {className: "nn-toc", innerHTML: "<summary>On this page</summary>"});
    const copy = list.cloneNode(true);
    copy.querySelectorAll("[id]").forEach((element) => element.removeAttribute("id"));
    box.append(copy);
    title.after(box);
  }
})();
