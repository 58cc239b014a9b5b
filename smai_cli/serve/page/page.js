/** The page of `smai serve`: it asks, shows the answer as it arrives, and says whether it is complete. */

import { AnswerText } from "./answer.js";
import { read } from "./verdict.js";

const NEAR_PX = 8;
const MODELS_MS = 5000;
const NO_TOKEN = "This page has no token. Open the address that smai serve printed.";
const CANNOT_PROCESS = [400, 422]; // how servers refuse a parameter that they do not know
const OLD_TOKEN = "The token of this page is out of date. Open the address that smai serve printed.";
const GONE = "smai serve does not answer. Start it again, and open the address that it prints";

const byId = (id) => document.getElementById(id);
const [prompt, model, system, send, stop] = ["prompt", "model", "system", "send", "stop"].map(byId);
const [status, error, conversation, fresh] = ["status", "error", "conversation", "new"].map(byId);
const welcome = document.querySelector(".welcome");

const messages = []; // the questions and their complete answers
const defaults = { model: "", system: "", server: "" };
let token = "";
let running = null; // the AbortController of the answer that streams
let growing = null; // its text
let lastQuestion = "";
let wantsUsage = true; // until a server answers only without `stream_options`
let follows = true;

// The token is in the fragment, which is not part of any request or log. It is removed from the address bar at once.

function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) history.replaceState(null, "", location.pathname);
  token = given || token;
  try {
    if (token) sessionStorage.setItem("token", token);
    else token = sessionStorage.getItem("token");
  } catch {
    // The browser blocks storage: the page works until it is reloaded.
  }
  sayOfToken(token ? "" : NO_TOKEN);
  if (token) loadSettings();
}

/** Say what is wrong with the token, unless the outcome of an answer is shown, which says it as well. */
function sayOfToken(failure) {
  if (!conversation.children.length) say("", failure);
}

function request(path, options = {}) {
  return fetch(path, { ...options, headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" } });
}

/** Set both live regions; unchanged text is not announced again. */
function say(text, failure = "") {
  if (status.textContent !== text) status.textContent = text;
  if (error.textContent !== failure) error.textContent = failure;
}

function make(name, className, text = "") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  if (name === "button") element.type = "button";
  return element;
}

/** Begin a turn. The outcome of the last one moves into it. */
function beginTurn(question) {
  const last = conversation.lastElementChild;
  if (last && status.textContent + error.textContent) {
    const className = error.textContent ? "outcome alarm" : "outcome";
    last.append(make("p", className, status.textContent + error.textContent));
  }
  welcome.hidden = true;
  fresh.hidden = false;
  const turn = make("section", "turn");
  const answer = make("div", "answer");
  const [copy, retry] = [make("button", "quiet", "Copy"), make("button", "quiet", "Retry")];
  copy.hidden = retry.hidden = true;
  copy.addEventListener("click", async () => {
    const copied = navigator.clipboard.writeText(answer.textContent);
    copy.textContent = await copied.then(() => "Copied", () => "Not copied");
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  });
  retry.addEventListener("click", () => {
    if (running) return;
    if (prompt.value === question) setPrompt("");
    prompt.focus();
    ask(question);
  });
  const actions = make("div", "actions");
  actions.append(copy, retry);
  turn.append(...questionElements(question), answer, actions);
  conversation.append(turn);
  return { turn, answer, copy, retry };
}

/** Return the question, and the button that shows all of a long one. */
function questionElements(question) {
  const isLong = question.length > 240 || question.includes("\n");
  const words = make("h2", isLong ? "question long" : "question", question);
  const more = make("button", "quiet more", "Show all");
  const show = (isOpen) => {
    words.classList.toggle("open", isOpen);
    more.textContent = isOpen ? "Show less" : "Show all";
    more.setAttribute("aria-expanded", isOpen);
  };
  show(false);
  more.addEventListener("click", () => show(!words.classList.contains("open")));
  new ResizeObserver(() => {
    const isCut = words.scrollHeight > words.clientHeight + 1;
    words.classList.toggle("cut", isCut);
    more.hidden = !isCut && !words.classList.contains("open");
  }).observe(words);
  return [words, more];
}

async function ask(question) {
  const { turn, answer, copy, retry } = beginTurn(question);
  const own = new AbortController();
  const text = new AnswerText(answer, follow);
  const begunMs = performance.now();
  [running, growing, follows, lastQuestion] = [own, text, true, question];
  show("Waiting for the answer");
  const asked = [...messages, { role: "user", content: question }];
  const onText = (delta) => {
    say("Answering");
    text.add(delta);
  };
  const end = await answerTo(asked, own.signal, onText, () => say("Thinking"));
  text.flush();
  if (running !== own) return; // a new conversation has begun
  running = growing = null;
  const isAnswered = end.verdict === "complete" && text.characters > 0; // some servers refuse a message without text
  if (isAnswered) messages.push(asked.at(-1), { role: "assistant", content: end.text });
  else if (!text.characters && !prompt.value) setPrompt(question);
  turn.dataset.verdict = end.verdict;
  copy.hidden = !text.characters;
  retry.hidden = isAnswered;
  show(...outcomeOf(end, text.characters, (performance.now() - begunMs) / 1000), end.verdict);
}

/** Return the end as read() does; with `isOfGateway` if smai serve itself refused. */
async function answerTo(asked, signal, onText, onThought, withUsage = wantsUsage) {
  const prefix = system.value.trim() ? [{ role: "system", content: system.value }] : [];
  const body = { model: chosenModel(), messages: [...prefix, ...asked], stream: true };
  if (withUsage) body.stream_options = { include_usage: true };
  let response;
  try {
    response = await request("/v1/chat/completions", { method: "POST", body: JSON.stringify(body), signal });
    // No server can send this header through the gateway.
    if (response.headers.has("smai-gateway")) {
      return { verdict: "refused", why: (await response.json()).error.message, isOfGateway: true };
    }
  } catch {
    return signal.aborted ? { verdict: "stopped" } : { verdict: "incomplete", why: GONE };
  }
  const end = await read(response, onText, onThought, { choices: 1 });
  if (!withUsage || !CANNOT_PROCESS.includes(response.status)) return end;
  const second = await answerTo(asked, signal, onText, onThought, false);
  wantsUsage = second.verdict !== "complete";
  return second;
}

/** Return the text for an end, good or bad. */
function outcomeOf({ verdict, why, calls, usage, model: named, isOfGateway }, characters, seconds) {
  const number = new Intl.NumberFormat(document.documentElement.lang);
  const counted = (count, word) => `${number.format(count)} ${word}${count === 1 ? "" : "s"}`;
  const figures = [counted(characters, "character")];
  if (Number.isInteger(usage?.completion_tokens)) figures.push(counted(usage.completion_tokens, "token"));
  figures.push(`${seconds.toFixed(1)} s`);
  if (named) figures.push(named);
  const tools = calls?.length ? `; the model calls a tool that this page does not have: ${calls.join(", ")}` : "";
  const line = figures.join(", ") + tools;
  if (verdict === "complete") return [`Complete: ${line}`, ""];
  if (verdict === "stopped") return [`Stopped: ${line}`, ""];
  if (verdict === "incomplete") return ["", `Incomplete: ${why}${characters ? ` (${line})` : ""}`];
  return ["", isOfGateway ? `Refused by smai serve, not by the server: ${why}` : `Refused: ${why}`];
}

/** Show the state of the page. `verdict` is null while an answer streams, and before the first. */
function show(text, failure = "", verdict = null) {
  if (verdict) document.body.dataset.verdict = verdict;
  else delete document.body.dataset.verdict;
  const hadFocus = document.activeElement === stop || document.activeElement === send;
  send.hidden = running !== null;
  stop.hidden = running === null;
  if (hadFocus) (running ? stop : prompt).focus();
  say(text, failure);
  follow();
}

/** Scroll to the end, unless the reader has scrolled up. */
function follow() {
  if (follows) scrollTo(0, document.documentElement.scrollHeight);
}

function beginConversation() {
  running?.abort();
  running = growing = null;
  messages.length = 0;
  conversation.replaceChildren();
  welcome.hidden = false;
  fresh.hidden = true;
  show("");
  prompt.focus();
}

function submit() {
  if (running || !prompt.value.trim()) return;
  const question = prompt.value;
  setPrompt("");
  ask(question);
}

function setPrompt(text) {
  prompt.value = text;
  fit();
}

/** Make the prompt as high as its text where the style sheet cannot. */
function fit() {
  if (CSS.supports("field-sizing", "content")) return;
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

const chosenModel = () => model.value.trim() || defaults.model;

function showWhere() {
  byId("where").textContent = [chosenModel(), defaults.server].filter(Boolean).join(" at ");
}

/** Ask the gateway what to start with. The page works without it. */
async function loadSettings() {
  const response = await request("/config.json").catch(() => null);
  if (response?.status === 401) sayOfToken(OLD_TOKEN);
  if (!response?.ok) return;
  Object.assign(defaults, await response.json());
  model.placeholder = defaults.model;
  system.value ||= defaults.system ?? "";
  showWhere();
}

/** Load the models of the server when the user opens the list. A request that hangs is aborted soon. */
async function loadModels({ currentTarget: details }) {
  if (!details.open || byId("models").children.length) return;
  try {
    const response = await request("/v1/models", { signal: AbortSignal.timeout(MODELS_MS) });
    const list = await response.json();
    const ids = [list.data ?? list].flat().map((entry) => entry?.id).filter(Boolean);
    byId("models").replaceChildren(...ids.map((id) => new Option(id, id)));
  } catch {
    // A model can still be typed.
  }
}

const isComposing = (event) => event.isComposing || event.keyCode === 229; // Safari has only the second

document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
prompt.addEventListener("input", fit);
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !isComposing(event)) {
    event.preventDefault();
    if (!event.repeat) submit();
  } else if (event.key === "ArrowUp" && !prompt.value) {
    event.preventDefault();
    setPrompt(lastQuestion);
  }
});
document.addEventListener("keydown", (event) => {
  const isInSettings = event.target.closest?.(".settings"); // there it closes a list
  if (event.key === "Escape" && !isComposing(event) && !isInSettings) running?.abort();
});
document.addEventListener("visibilitychange", () => growing?.reschedule());
document.querySelector("details").addEventListener("toggle", loadModels);
model.addEventListener("input", showWhere);
stop.addEventListener("click", () => running?.abort());
// The buttons replace each other in one place. The second click of a double click was not meant for the other one.
document.querySelector(".act").addEventListener("click", (event) => {
  if (event.detail !== 2) return;
  event.preventDefault();
  event.stopPropagation();
}, true);
fresh.addEventListener("click", beginConversation);
// A page that the user has left keeps its fetch alive for many seconds.
addEventListener("pagehide", () => running?.abort());
addEventListener("hashchange", takeToken);
addEventListener("scroll", () => {
  const { scrollHeight, clientHeight } = document.documentElement;
  follows = scrollY + clientHeight >= scrollHeight - NEAR_PX;
}, { passive: true });

takeToken();
