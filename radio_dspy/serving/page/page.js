"use strict";
// Questions, answers and passages are set as text, never as HTML.
(() => {
  const TITLES = { first_stage: "First stage", base: "Base reranker", aligned: "Aligned reranker" };
  const inColumns = (orders) => Object.keys(TITLES).filter((order) => orders.includes(order));
  const RECENT = "radio-dspy-questions";
  const MOST_RECENT = 8;
  const $ = (id) => document.getElementById(id);
  const form = $("form");
  let served = null;
  let turn = 0; // answers of an earlier question are dropped

  const make = (name, className, text) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const button = (text, act) => {
    const element = make("button", "", text);
    element.type = "button";
    element.addEventListener("click", () => act(element));
    return element;
  };
  const say = (text, failed) => {
    $("status").textContent = text;
    $("status").className = failed ? "failed" : "";
  };
  const shortTime = (seconds) => (seconds < 1 ? Math.round(seconds * 1000) + " ms" : seconds.toFixed(1) + " s");

  // Requests
  const send = async (path, body) => {
    const headers = { "content-type": "application/json" };
    if ($("key").value) headers.authorization = "Bearer " + $("key").value;
    const reply = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
    if (reply.ok) return reply;
    if (reply.status === 401) {
      $("key-label").hidden = false;
      $("key").focus();
    }
    const said = await reply.json().catch(() => ({}));
    throw new Error(said.detail || "the server answered with status " + reply.status);
  };
  const events = async (reply, act) => {
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const [, name, data] = part.match(/^event: (\w+)\ndata: (.*)$/) || [];
        if (name) act(name, JSON.parse(data));
      }
    }
  };

  // Feedback: what was said of the question in hand is sent whole with every click
  const feedback = { question: "", passages: {} };
  const keep = async (more) => {
    try {
      await send("feedback", { ...feedback, ...more });
      say("Feedback kept.");
    } catch (error) {
      say("Feedback not kept: " + error.message, true);
    }
  };
  const pressed = (chosen, ...others) => {
    chosen.setAttribute("aria-pressed", "true");
    for (const other of others) other.setAttribute("aria-pressed", "false");
  };
  const pair = (label, yes, no, act) => {
    const row = make("div", "row");
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", label);
    const first = button(yes, () => { pressed(first, second); act(true); });
    const second = button(no, () => { pressed(second, first); act(false); });
    for (const one of [first, second]) one.setAttribute("aria-pressed", "false");
    row.append(first, second);
    return row;
  };

  // Answers
  const cardFor = (order) => {
    const card = make("div", "card " + order);
    card.append(make("h3", "", TITLES[order]), make("p", "answer", "…"), make("span", "where", "waiting"));
    return card;
  };
  const answer = async (order, card, question, choices, mine) => {
    const text = card.querySelector(".answer");
    const where = card.querySelector(".where");
    let said = "";
    where.textContent = "asking";
    const ended = (result) => {
      text.textContent = result.answer || "(no answer that can be read)";
      where.textContent = shortTime(result.seconds) + " · read " + result.passages.map((one) => one.id).join(", ");
      if (served.feedback) {
        card.append(pair("Is this answer right?", "right", "wrong", (good) => keep({ answer: result.answer, good })));
      }
    };
    const failed = (reason) => {
      text.textContent = reason;
      text.classList.add("failed");
      where.textContent = "no answer";
    };
    try {
      const body = { question, order, stream: true, ...(choices.length ? { choices } : {}) };
      await events(await send("ask", body), (name, data) => {
        if (mine !== turn) return;
        if (name === "token") text.textContent = said += data.text;
        else if (name === "done") ended(data);
        else if (name === "error") failed(data.detail);
      });
    } catch (error) {
      failed(error.message);
    }
  };

  // Orders
  const move = (place, before, order) => {
    const other = "the " + TITLES[order].toLowerCase();
    const up = before - place;
    if (!up) return [make("span", "move", "="), " same place as in " + other];
    const element = make("span", "move " + (up > 0 ? "up" : "down"), up > 0 ? "▲ up " + up : "▼ down " + -up);
    return [element, " from place " + before + " in " + other];
  };
  const passage = (one, order, orders) => {
    const item = make("li");
    item.dataset.id = one.id;
    if (one.title) item.append(make("b", "", one.title));
    item.append(make("p", "", one.text));
    const where = make("span", "where", one.id + " · score " + one.scores[order].toFixed(3) + " ");
    const before = orders[orders.indexOf(order) - 1];
    if (before) where.append("· ", ...move(one.places[order], one.places[before], before));
    item.append(where);
    if (order === "aligned" && served.feedback) {
      item.append(pair("Does passage " + one.id + " answer it?", "answers it", "does not", (right) => {
        feedback.passages[one.id] = right;
        keep({});
      }));
    }
    return item;
  };
  const showOrders = (found) => {
    const orders = inColumns(served.orders);
    const lists = orders.map((order) => {
      const card = make("div", "card " + order);
      const sorted = found.passages.slice().sort((a, b) => a.places[order] - b.places[order]);
      const head = make("ol");
      head.append(...sorted.slice(0, served.k).map((one) => passage(one, order, orders)));
      card.append(make("h3", "", TITLES[order]), head);
      if (sorted.length > served.k) {
        const more = make("details");
        const rest = make("ol");
        rest.start = served.k + 1;
        rest.append(...sorted.slice(served.k).map((one) => passage(one, order, orders)));
        more.append(make("summary", "", "The other " + (sorted.length - served.k) + ", which the LM does not read"), rest);
        card.append(more);
      }
      return card;
    });
    $("order-lists").replaceChildren(...lists);
    const names = { retrieve: "first stage", ...TITLES };
    const times = Object.entries(found.seconds).map(([name, seconds]) => names[name].toLowerCase() + " " + shortTime(seconds));
    $("timings").textContent = found.passages.length + " passages; " + times.join(", ");
    $("orders").hidden = false;
  };

  // Recent questions, kept in this browser alone
  const recent = () => {
    try {
      const found = JSON.parse(localStorage.getItem(RECENT) || "[]");
      return Array.isArray(found) ? found.filter((one) => typeof one === "string") : [];
    } catch {
      return [];
    }
  };
  const remember = (question) => {
    const all = [question, ...recent().filter((one) => one !== question)].slice(0, MOST_RECENT);
    try {
      localStorage.setItem(RECENT, JSON.stringify(all));
    } catch { /* a browser may allow none */ }
    showRecent();
  };
  const showRecent = () => {
    const entries = recent().map((question) => {
      const item = make("li");
      const again = button(question, () => {
        $("question").value = question;
        form.requestSubmit();
      });
      again.title = question;
      item.append(again);
      return item;
    });
    $("recent-list").replaceChildren(...entries);
    $("recent").hidden = !entries.length;
  };

  const knowServer = async () => {
    served = await (await send("version")).json();
    $("served").textContent = "radio-dspy " + served.release + " · " + served.program + " · base " + served.base + " · " + (served.lm ? "LM " + served.lm.split("/").pop() : "no LM: passages alone");
    $("choices-label").hidden = !served.choices;
  };

  const ask = async () => {
    const question = $("question").value.trim();
    const choices = $("choices").value.split("\n").map((one) => one.trim()).filter(Boolean);
    if (!question) return;
    const mine = ++turn;
    $("ask").disabled = true;
    say("Asking …");
    try {
      if (!served) await knowServer();
      Object.assign(feedback, { question, passages: {}, choices: choices.length ? choices : null });
      const cards = Object.fromEntries(inColumns(served.orders).map((order) => [order, cardFor(order)]));
      $("answer-cards").replaceChildren(...Object.values(cards));
      $("answers").hidden = !served.lm;
      const found = await (await send("retrieve", { query: question, k: served.candidates, orders: ["aligned", ...served.orders.filter((one) => one !== "aligned")] })).json();
      showOrders(found);
      remember(question);
      if (served.lm) {
        // One after the other: an LM on this machine would answer each more slowly at once.
        for (const order of inColumns(served.orders).reverse()) {
          if (mine === turn) await answer(order, cards[order], question, choices, mine);
        }
      }
      if (mine === turn) say("Done.");
    } catch (error) {
      if (mine === turn) say(error.message, true);
    } finally {
      if (mine === turn) $("ask").disabled = false;
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  $("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  showRecent();
  knowServer().catch((error) => say(error.message, true));
})();
