"use strict";
// Texts of questions and passages are set as text, never as HTML.
(() => {
  const STEP = 50;
  const questions = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  if (!form) return;
  const list = document.getElementById("list");
  const more = document.getElementById("more");
  const status = document.getElementById("status");
  const effects = form.elements.namedItem("effect");
  const search = form.elements.namedItem("search");
  let found = [];
  let shown = 0;

  const make = (name, className, text) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const signed = (value) => (value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3));
  const fields = (passage) => Object.entries(passage.metadata || {}).map(([name, value]) => name + ": " + value);
  const haystacks = questions.map((one) => [
    one.id, one.question, ...one.answers,
    ...one.passages.flatMap((passage) => [passage.id, passage.title, passage.text, ...fields(passage)]),
  ].join("\n").toLowerCase());

  const passages = (one, title, ranking, other, otherTitle) => {
    const side = make("div");
    side.append(make("h3", "", title));
    const items = make("ol");
    ranking.forEach(([index, score], rank) => {
      const passage = one.passages[index];
      const relevant = one.relevant.includes(index);
      const before = other.findIndex((entry) => entry[0] === index);
      const item = make("li", relevant ? "relevant" : "");
      if (passage.title) item.append(make("b", "", passage.title));
      item.append(make("p", "", passage.text));
      if (passage.metadata) item.append(make("small", "", fields(passage).join(" · ")));
      const where = make("span", "where");
      if (relevant) where.append(make("strong", "", "relevant"), " · ");
      const place = before < 0 ? "not among the first " + other.length + " " + otherTitle : "place " + (before + 1) + " " + otherTitle;
      where.append(passage.id + " · score " + score.toFixed(3) + " · " + place);
      item.append(where);
      items.append(item);
    });
    side.append(items);
    return side;
  };

  const body = (one) => {
    const element = make("div", "body");
    element.append(make("p", "", "id: " + one.id));
    if (one.answers.length) element.append(make("p", "", "answer: " + one.answers.join(" | ")));
    for (const [row, metrics] of Object.entries(one.metrics)) {
      const values = Object.entries(metrics).map(([name, value]) => name + " " + value.toFixed(3));
      element.append(make("p", "", row.replaceAll("_", " ") + ": " + values.join(", ")));
    }
    const sides = make("div", "sides");
    sides.append(passages(one, "Before", one.before, one.after, "after"), passages(one, "After", one.after, one.before, "before"));
    element.append(sides);
    return element;
  };

  const entry = (one) => {
    const element = make("details", "q " + one.effect);
    const head = make("summary");
    head.append(make("span", "change", signed(one.change)), make("span", "", one.question));
    element.append(head);
    element.addEventListener("toggle", () => {
      if (element.open && element.children.length === 1) element.append(body(one));
    });
    return element;
  };

  const showMore = () => {
    list.append(...found.slice(shown, shown + STEP).map(entry));
    shown = Math.min(found.length, shown + STEP);
    more.hidden = shown >= found.length;
  };

  const update = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = questions.filter((one, number) =>
      (effects.value === "all" || one.effect === effects.value) && words.every((word) => haystacks[number].includes(word)));
    list.replaceChildren();
    shown = 0;
    showMore();
    status.textContent = found.length + " of " + questions.length + " questions";
  };

  for (const element of document.querySelectorAll("[data-count]")) {
    const name = element.dataset.count;
    element.textContent = "(" + questions.filter((one) => name === "all" || one.effect === name).length + ")";
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", update);
  more.addEventListener("click", showMore);
  update();
})();
