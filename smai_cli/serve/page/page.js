/** The page of `smai serve`: asks, shows the answer as it comes, and says whether it is whole. */

import { read } from "./reader.js";

const BEHIND_MS = 200; // a hidden tab draws no frames
const RESTS = 4; // times as long as the last redraw took
const NEAR_PX = 8;
const byId = (id) => document.getElementById(id);
const [prompt, model, system, send, stop] = ["prompt", "model", "system", "send", "stop"].map(byId);
const [status, error, conversation] = ["status", "error", "conversation"].map(byId);

const messages = []; // what was asked and answered in full
const defaults = { model: "", system: "" };
let running = null; // the AbortController of the answer that streams
let wantsUsage = true; // some servers refuse the question for it
let follows = true;

// The token comes in the fragment, which no server and no log sees, and leaves the address bar at once.

function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname);
  say("");
}

function request(path, options = {}) {
  const token = sessionStorage.getItem("token");
  return fetch(path, { ...options, headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" } });
}

function say(told, failed = "") {
  if (status.textContent !== told) status.textContent = told;
  if (error.textContent !== failed) error.textContent = failed;
}

// The answer grows by frames, however many deltas come in one: each redraw costs more than all of them. A long answer,
// or a slow machine, redraws less often, so that it is never busy with that alone.

class Growing {
  #node = document.createTextNode("");
  #waiting = "";
  #frame = 0;
  #timer = 0;
  #restsUntilMs = 0;
  characters = 0;

  constructor(element) {
    element.append(this.#node);
  }

  add(text) {
    this.#waiting += text;
    this.#frame ||= requestAnimationFrame(this.#draw);
    this.#timer ||= setTimeout(() => this.flush(), BEHIND_MS);
  }

  #draw = (nowMs) => {
    if (nowMs < this.#restsUntilMs) this.#frame = requestAnimationFrame(this.#draw);
    else this.flush();
  };

  flush() {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#frame = this.#timer = 0;
    const begunMs = performance.now();
    for (const _ of this.#waiting) this.characters += 1; // code points, not UTF-16 units
    this.#node.appendData(this.#waiting);
    this.#waiting = "";
    if (follows) scrollTo(0, document.documentElement.scrollHeight);
    const endedMs = performance.now();
    this.#restsUntilMs = endedMs + RESTS * (endedMs - begunMs);
  }
}

function make(name, className, text = "") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}

/** Begin a turn; what was said of the one before it stays there. */
function beginTurn(question) {
  const last = conversation.lastElementChild;
  if (last && status.textContent + error.textContent) {
    last.append(make("p", error.textContent ? "fate alarm" : "fate", status.textContent + error.textContent));
  }
  document.querySelector(".welcome")?.remove();
  const turn = make("section", "turn");
  const asked = make("div", "asked");
  const words = make("h2", "question", question);
  const answer = make("div", "answer");
  const copy = make("button", "copy", "Copy");
  copy.type = "button";
  copy.disabled = true;
  copy.addEventListener("click", async () => {
    const copied = navigator.clipboard.writeText(answer.textContent);
    copy.textContent = await copied.then(() => "Copied", () => "Not copied");
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  });
  asked.append(words, copy);
  turn.append(asked, answer);
  conversation.append(turn);
  return { turn, answer, copy };
}

async function ask(question) {
  const { turn, answer, copy } = beginTurn(question);
  const growing = new Growing(answer);
  const begunMs = performance.now();
  const own = new AbortController();
  running = own;
  follows = true;
  show("Waiting for the answer");
  const asked = [...messages, { role: "user", content: question }];
  const onText = (text) => {
    say("Answering");
    growing.add(text);
  };
  const end = await answerTo(asked, own.signal, onText, () => say("Thinking"));
  growing.flush();
  running = null;
  if (end.verdict === "complete") messages.push(asked.at(-1), { role: "assistant", content: end.text });
  turn.dataset.verdict = end.verdict;
  copy.disabled = !growing.characters;
  show(...outcome(end, growing.characters, (performance.now() - begunMs) / 1000), end.verdict);
}

/** Return what read() returns; it is incomplete too where there is no connection. */
async function answerTo(asked, signal, onText, onThought) {
  const prefix = system.value.trim() ? [{ role: "system", content: system.value }] : [];
  const body = { model: model.value.trim() || defaults.model, messages: [...prefix, ...asked], stream: true };
  if (wantsUsage) body.stream_options = { include_usage: true };
  let end;
  try {
    const response = await request("/v1/chat/completions", { method: "POST", body: JSON.stringify(body), signal });
    end = await read(response, onText, onThought);
  } catch (failure) {
    if (failure.name === "AbortError") return { verdict: "stopped" };
    return { verdict: "incomplete", why: "smai serve is gone; start it again, and open the address that it prints" };
  }
  if (end.verdict === "refused" && wantsUsage && /stream_options|include_usage/.test(end.why)) {
    wantsUsage = false;
    return answerTo(asked, signal, onText, onThought);
  }
  return end;
}

/** Return what is said of an end, as what went well and what did not. */
function outcome({ verdict, why, usage }, characters, seconds) {
  const number = new Intl.NumberFormat(document.documentElement.lang);
  const counted = (count, word) => `${number.format(count)} ${word}${count === 1 ? "" : "s"}`;
  const figures = [counted(characters, "character")];
  if (Number.isInteger(usage?.completion_tokens)) figures.push(counted(usage.completion_tokens, "token"));
  figures.push(`${seconds.toFixed(1)} s`);
  if (verdict === "complete") return [`Complete: ${figures.join(", ")}`, ""];
  if (verdict === "stopped") return [`Stopped: ${figures.join(", ")}`, ""];
  return ["", `${verdict === "refused" ? "Refused" : "Incomplete"}: ${why}`];
}

/** Show what the page does: `verdict` is absent while an answer streams. */
function show(told, failed = "", verdict = null) {
  if (verdict) document.body.dataset.verdict = verdict;
  else delete document.body.dataset.verdict;
  const hadFocus = document.activeElement === stop || document.activeElement === send;
  send.hidden = running !== null;
  stop.hidden = running === null;
  if (hadFocus) (running ? stop : prompt).focus();
  say(told, failed);
  if (follows) scrollTo(0, document.documentElement.scrollHeight);
}

function submit() {
  if (running || !prompt.value.trim()) return;
  const question = prompt.value;
  prompt.value = "";
  fit();
  ask(question);
}

/** Let the prompt be as high as its text, where the style sheet cannot. */
function fit() {
  if (CSS.supports("field-sizing", "content")) return;
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

const isComposing = (event) => event.isComposing || event.keyCode === 229; // Safari says the second only

document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
prompt.addEventListener("input", fit);
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || isComposing(event)) return;
  event.preventDefault();
  submit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !isComposing(event)) running?.abort();
});
stop.addEventListener("click", () => running?.abort());
// A page that is left keeps its fetch alive for many seconds.
addEventListener("pagehide", () => running?.abort());
addEventListener("hashchange", takeToken);
addEventListener("scroll", () => {
  const { scrollHeight, clientHeight } = document.documentElement;
  follows = scrollY + clientHeight >= scrollHeight - NEAR_PX;
}, { passive: true });

takeToken();
if (!sessionStorage.getItem("token")) say("", "This page has no token: open the address that smai serve printed.");

// What the server would use, and what it offers: without it the page works all the same.
fetch("/config.json")
  .then((response) => response.json())
  .then((config) => {
    Object.assign(defaults, config);
    model.placeholder = defaults.model;
    system.value ||= defaults.system ?? "";
  })
  .catch(() => {});
request("/v1/models")
  .then((response) => response.json())
  .then(({ data }) => byId("models").append(...data.map(({ id }) => new Option(id, id))))
  .catch(() => {});
