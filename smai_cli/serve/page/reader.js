/**
 * Reads the streamed answer of an OpenAI-compatible chat API from a fetch, and tells whether it is whole.
 *
 *     import { read } from "./reader.js";
 *     const response = await fetch("/v1/chat/completions", { method: "POST", headers, body, signal });
 *     const { verdict, why, text } = await read(response, (delta) => paragraph.append(delta));
 *
 * `verdict` is "complete" only if the server said so: by a finish_reason that means it, and nothing against it.
 * "incomplete" says that something is missing, "refused" that there is no answer, "stopped" that the fetch was aborted;
 * `why` has the words for it, the server's own where it has any. Rules and verdicts are those of `smai decode`.
 */

const WHOLE = ["stop", "tool_calls", "function_call", "eos", "eos_token", "end_turn", "stop_sequence", "complete"];
const WORSE = ["length", "content_filter", "error"]; // a word in neither list is between the two
const SIGNS_OF_LIFE = ["", "ping", "pong", "keepalive", "keep-alive", "heartbeat"];
const FIELDS = ["data:", "event:", "id:", "retry:", ":"];
const LIMIT = 16 * 1024 * 1024; // characters of an event, or of a body in one piece
const GRACE_MS = 5000; // for usage and [DONE], once the server has said that the answer is whole

/** What ends the reading: `message` says why, `verdict` what is left. */
class End extends Error {
  constructor(verdict, message) {
    super(message);
    this.verdict = verdict;
  }
}
const incomplete = (why) => new End("incomplete", why);
const refused = (why) => new End("refused", why);

/**
 * Read `response` to the end of the answer, and leave then, also where the connection stays open.
 *
 * `onText` gets each delta as soon as it is there, in whole characters; `onThought` what a model thinks before.
 * Returns { verdict, why, text, reason, model, usage }. Throws nothing but what the two throw.
 */
export async function read(response, onText = () => {}, onThought = () => {}) {
  const reader = response.body.getReader();
  const leave = () => reader.cancel().catch(() => {});
  const answer = new Answer(onText, onThought);
  let end, grace;
  try {
    if (!response.ok) throw refused(await httpError(response, texts(reader)));
    for await (const { name, data } of events(response, texts(reader))) {
      answer.hear(name, data);
      if (answer.isDone || answer.error !== null) break;
      if (answer.isFinal) grace ??= setTimeout(leave, GRACE_MS);
      else grace = clearTimeout(grace);
    }
    answer.isSealed = true; // the end that a body has of its own: reading one that was cut throws
  } catch (error) {
    if (!(error instanceof End)) throw error;
    end = error;
  } finally {
    clearTimeout(grace);
    leave();
    answer.flush();
  }
  const { verdict, message } = answer.verdict(end);
  return { verdict, why: message, text: answer.text, reason: answer.reason, model: answer.model, usage: answer.usage };
}

/** Yield the text of a body as it comes: no BOM, no half characters. */
async function* texts(reader) {
  const decoder = new TextDecoder();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      yield decoder.decode(read.value, { stream: true });
    }
  } catch (error) {
    if (error.name === "AbortError") throw new End("stopped", "stopped");
    throw incomplete("the connection broke before the answer was complete");
  }
  yield decoder.decode();
}

/** Yield what a body holds as { name, data }: server-sent events, or one piece of JSON by the name `body`. */
async function* events(response, pieces) {
  let head = "";
  for (let piece = {}; !piece.done && !head.trim(); head += piece.value ?? "") piece = await pieces.next();
  const isPage = /^text\/html\b/i.test(response.headers.get("content-type") ?? "");
  if (isPage || head.trimStart()[0] === "<") throw refused("the server answered a web page, no completion");
  if (/^\s*[{[]/.test(head)) yield { name: "body", data: await all(head, pieces) };
  else yield* serverSent(head, pieces);
}

/** Yield server-sent events (WHATWG HTML, 9.2.6), wherever the pieces are cut, as soon as their blank line is there. */
async function* serverSent(head, pieces) {
  let [name, data, line, opening, size, isAfterCr, isEmpty] = ["", [], "", "", 0, false, true];
  for (let piece = { value: head }; !piece.done; piece = await pieces.next()) {
    const text = isAfterCr && piece.value[0] === "\n" ? piece.value.slice(1) : piece.value; // half of a CRLF
    if (piece.value) isAfterCr = piece.value.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = line + lines[0];
    line = lines.pop();
    size += text.length;
    for (const whole of lines) {
      opening ||= whole.trim();
      const [field, value] = fieldOf(whole);
      if (field === "event") name = value;
      if (field === "data") data.push(value);
      if (whole !== "" && field !== "error") continue;
      if (data.length) yield { name, data: data.join("\n") };
      if (field === "error") yield { name: "error", data: value }; // llama.cpp, September 2024 to 2025
      isEmpty &&= !data.length && field !== "error";
      [name, data, size] = ["", [], line.length];
    }
    if (size > LIMIT) throw incomplete("an event of the stream is too large");
  }
  opening ||= line.trim();
  // An event without its last blank line is one that was cut, but where it is provably whole.
  const [field, value] = fieldOf(line);
  const tail = [...data, ...(field === "data" ? [value] : [])].join("\n");
  if (tail.trim() === "[DONE]" || isObject(parse(tail))) yield { name: field === "event" ? value : name, data: tail };
  else if (isEmpty && !FIELDS.some((known) => opening.startsWith(known) || known.startsWith(opening))) {
    throw refused("the server answered something that is no completion");
  }
}

function fieldOf(line) {
  const colon = line.indexOf(":");
  return colon < 0 ? [line, ""] : [line.slice(0, colon), line.slice(colon + (line[colon + 1] === " " ? 2 : 1))];
}

/** Return a whole body. One that was cut counts where it is whole JSON all the same. */
async function all(head, pieces) {
  let body = head;
  try {
    for await (const piece of pieces) {
      body += piece;
      if (body.length > LIMIT) throw incomplete("the answer is too large");
    }
  } catch (error) {
    if (parse(body) === undefined) throw error;
  }
  return body;
}

/** Parse JSON; undefined for what is none. NaN and Infinity, which Python servers write, become null. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    try {
      const stringOrWord = /"(?:\\.|[^"\\])*"|-?\b(?:NaN|Infinity)\b/g;
      return JSON.parse(text.replace(stringOrWord, (found) => (found[0] === '"' ? found : "null")));
    } catch {
      return undefined;
    }
  }
}

// Members of a chunk that is a delta of text and nothing else.
const CHUNK = new Set(["id", "object", "created", "model", "system_fingerprint", "service_tier", "choices", "usage"]);
const CHOICE = new Set(["index", "delta", "finish_reason", "logprobs"]);
const CONTENT = new Set(["content"]);

function hasOnly(object, names) {
  for (const name in object) if (!names.has(name)) return false;
  return true;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const asObject = (value) => (isObject(value) ? value : {});
const short = (text) => (text.length > 500 ? `${text.slice(0, 500)}...` : text).trim().replace(/\s+/g, " ");

/** Return the text of a content: a string, an object with a text in it, or a list of those. */
function textOf(content) {
  if (typeof content === "string") return content;
  return (Array.isArray(content) ? content : [content]).map((part) => partText(part) ?? "").join("");
}

function partText(part) {
  const text = isObject(part) ? (part.text !== undefined ? part.text : part.content) : part;
  return typeof text === "string" ? text : null;
}

/** Whether a content has something in it that may be the answer and cannot be read. */
function isUnread(content) {
  if (typeof content === "string" || isNothing(content)) return false;
  const beside = ["thinking", "reasoning", "refusal"];
  return [content].flat().some((part) => partText(part) === null && !beside.includes(asObject(part).type));
}

/** What counts as absent where servers write null, false, 0, "" or an empty list. */
const isNothing = (value) => !value || (Array.isArray(value) && !value.length);

/** One answer as it grows: its text, and what the server has said of the end of each of its choices. */
class Answer {
  text = "";
  reason = null;
  model = "";
  usage = null;
  error = null; // the server's words for its failure
  isDone = false;
  isSealed = false;
  #onText;
  #onThought;
  #choices = new Map();
  #main = null; // the index of the choice that is the answer
  #held = ""; // the first half of a surrogate pair that two deltas bring
  #said = ""; // the text that came in `message` so far
  #refusal = "";
  #isUnread = false;
  #isInOnePiece = false;
  #has = { text: false, refusal: false, calls: false };

  constructor(onText, onThought) {
    this.#onText = onText;
    this.#onThought = onThought;
  }

  /** Take one event. Throws the End that it is, where it is no chunk. */
  hear(name, data) {
    if (name === "body") return this.#hearBody(data);
    if (data.trim() === "[DONE]") return void (this.isDone = true);
    const payload = parse(data);
    if (name.toLowerCase() === "error") {
      this.error = isObject(payload) ? (errorIn(payload) ?? wordsOf(payload)) : data || "no message";
    } else if (isObject(payload)) {
      this.#hear(payload, "delta", name === "" || name === "message");
    } else if ((name === "" || name === "message") && !SIGNS_OF_LIFE.includes(data.trim().toLowerCase())) {
      throw incomplete(`an event is ${payload === undefined ? "not JSON" : "no JSON object"}: ${short(data)}`);
    }
  }

  #hearBody(data) {
    let payload = parse(data);
    if (Array.isArray(payload) && asObject(payload[0]).error !== undefined) payload = payload[0]; // Gemini
    if (payload === undefined && isObject(parse(data.trim().split("\n")[0]))) {
      throw refused(`the server answered more than one JSON object: ${short(data)}`);
    }
    if (!isObject(payload)) throw incomplete(`the answer is no JSON object: ${short(data)}`);
    this.#hear(payload, "message", true);
    this.#isInOnePiece = this.isDone = true;
    if (this.error !== null && !this.text) throw refused(`the server answered with an error: ${this.error}`);
    if (this.error === null && !(Array.isArray(payload.choices) || Object.keys(asObject(payload.choices)).length)) {
      throw refused(`the server answered JSON that is no completion: ${short(data)}`);
    }
  }

  /** Return the text of a chunk that is a delta and nothing else, as most are, where nothing but text can follow. */
  #plainText(payload) {
    const { choices, usage } = payload;
    const choice = Array.isArray(choices) && choices.length === 1 && choices[0];
    if (!choice || !this.#choices.get(choice.index)?.isPlain || choice.index !== this.#main || usage) return null;
    const isPlain = hasOnly(payload, CHUNK) && payload.object !== "error" && hasOnly(choice, CHOICE);
    const delta = isPlain && (choice.finish_reason ?? null) === null && choice.delta;
    return delta && hasOnly(delta, CONTENT) && typeof delta.content === "string" ? delta.content : null;
  }

  #hear(payload, part, isMessage) {
    const text = this.#plainText(payload);
    if (text !== null) {
      this.#has.text = true;
      return this.#take(text);
    }
    if (typeof payload.model === "string" && payload.model) this.model = payload.model;
    this.usage = usageIn(payload) ?? this.usage;
    this.error = errorIn(payload);
    const list = isObject(payload.choices) ? [payload.choices] : Array.isArray(payload.choices) ? payload.choices : [];
    const choices = list.filter((choice) => choice !== null && choice !== undefined);
    if (!list.length || (isObject(payload.choices) && !Object.keys(payload.choices).length)) {
      const isOdd = isMessage && payload.choices === undefined;
      this.error ??= isOdd ? unmarkedErrorIn(payload) : null;
      this.#isUnread ||= isOdd && !usageIn(payload) && !["ping", "keepalive", "heartbeat"].includes(payload.type);
      return;
    }
    const known = choices.map((choice) => (isObject(choice) ? choice : { delta: choice }));
    const indexOf = (choice) => (Number.isInteger(choice.index) ? choice.index : 0);
    this.#main ??= Math.min(...known.map(indexOf));
    for (const choice of known) this.#hearChoice(choice, indexOf(choice), part);
    for (const holder of known.flatMap((choice) => [choice, asObject(choice.delta)])) {
      if (!isNothing(holder.error)) this.error ??= wordsOf(holder.error);
    }
  }

  #hearChoice(choice, index, part) {
    let given = choice[part];
    let whole = null; // what is said of the whole answer, beside deltas or instead of them
    if (!isObject(given) || "message" in choice) {
      if (part === "delta" && "message" in choice) whole = view(choice.message);
      given ??= choice.delta ?? choice.text;
    }
    const fields = view(given);
    if (this.#choices.size < 1000 && !this.#choices.has(index)) this.#choices.set(index, new Choice());
    const state = this.#choices.get(index);
    const reason = fields.role === "tool" ? null : reasonOf(choice);
    let { text, refusal, calls, thought } = fields;
    if (index === this.#main) {
      this.#has.text ||= Boolean(text);
      this.#has.refusal ||= Boolean(refusal);
      if (whole && !this.#has.text) text ||= this.#newIn(whole.text);
      if (whole && !this.#has.refusal) refusal ||= whole.refusal;
      if (whole && !this.#has.calls) calls ||= whole.calls;
      this.#has.calls ||= calls;
      this.#isUnread ||= fields.isUnread || Boolean(whole?.isUnread);
      this.#refusal = (this.#refusal + refusal).slice(0, 1000);
      if (text) this.#take(text);
      if (thought) this.#onThought(thought);
    } else {
      text ||= whole?.text ?? "";
    }
    const bringsText = Boolean(text || refusal || calls);
    state?.hear(reason, bringsText || Boolean(thought), bringsText, fields.opens);
    if (index === this.#main) this.reason = worst(state.words) ?? null;
  }

  /** Return what is new in a `message` that says all so far again, or a further part. */
  #newIn(text) {
    const isAgain = text.startsWith(this.#said);
    const fresh = isAgain ? text.slice(this.#said.length) : text;
    this.#said = isAgain ? text : this.#said + text;
    return fresh;
  }

  #take(delta) {
    const text = this.#held + delta;
    this.#held = /[\ud800-\udbff]$/.test(text) ? text.at(-1) : "";
    this.#give(text.slice(0, text.length - this.#held.length));
  }

  #give(text) {
    const whole = text.toWellFormed();
    this.text += whole;
    if (whole) this.#onText(whole);
  }

  /** Give what is still held, when nothing more comes. */
  flush() {
    const rest = this.#held;
    this.#held = "";
    this.#give(rest);
  }

  /** Whether the answer is whole, however the connection ends. */
  get isFinal() {
    return this.#all((choice) => choice.isFinal);
  }

  #all(hasEnded) {
    return this.#main !== null && [...this.#choices.values()].every(hasEnded);
  }

  /** Return { verdict, message }; `end` is the End that stopped the reading, if one did. */
  verdict(end) {
    if (end && (end.verdict === "refused" || !this.isFinal)) return end; // else how it ended is moot
    if (this.error !== null) {
      const isRefusal = !this.text && REFUSALS.test(this.error.replace(/[^a-z0-9]/gi, ""));
      return (isRefusal ? refused : incomplete)(`the server reported an error in the stream: ${this.error}`);
    }
    const isSealed = this.isSealed || this.isDone;
    if (!this.#all((choice) => choice.stands && (choice.isFinal || isSealed))) return incomplete(this.#unsaid());
    const word = worst([...this.#choices.values()].flatMap((choice) => [...choice.words]));
    if (this.#refusal && rank(word) <= 1) return refused(`the model refused: ${short(this.#refusal)}`);
    if (WORSE[0] === word.toLowerCase()) return incomplete("the answer hit the token limit");
    if (WORSE[1] === word.toLowerCase()) return incomplete("the answer was withheld by a content filter");
    if (rank(word)) return incomplete(`the answer ended with finish_reason ${word}`);
    if (this.#isUnread && !this.text && !this.#has.calls) {
      return incomplete("the server says that the answer is complete, and no text can be read in it");
    }
    return { verdict: "complete", message: "" };
  }

  #unsaid() {
    const choices = [...this.#choices.values()];
    if (this.#isInOnePiece) return "the answer has no finish_reason";
    if (choices.some((choice) => choice.stands && !choice.isFinal)) {
      return "the stream ended without [DONE], and its finish_reason may be one that came with every chunk";
    }
    if (!this.isDone) return "the stream ended before finish_reason";
    if (!choices.some((choice) => choice.words.size)) return "the stream ended with [DONE], but without finish_reason";
    return "the stream ended with text behind its finish_reason, or with a choice that has none";
  }
}

/**
 * What the server has said of the end of one choice.
 *
 * A reason beside the first text may stand in every chunk of that server: it is final only once the body ends, or by
 * [DONE]. Text behind a reason takes it back. Of several the worst counts.
 */
class Choice {
  words = new Set();
  stands = false;
  isFinal = false;
  #isNew = true;
  #goesWithout = false; // text came without a reason

  /** Whether text that comes with nothing else changes nothing. */
  get isPlain() {
    return this.#goesWithout && !this.stands;
  }

  hear(reason, brings, bringsText, opens) {
    if (brings && this.stands) this.stands = this.isFinal = this.#goesWithout = false;
    if (reason !== null) {
      this.words.add(reason);
      this.stands = true;
      this.isFinal = this.#goesWithout || !(brings || (opens && this.#isNew));
    } else if (bringsText) {
      this.#goesWithout = true;
    }
    this.#isNew = false;
  }
}

const rank = (word) => (WHOLE.includes(word.toLowerCase()) ? 0 : WORSE.indexOf(word.toLowerCase()) + 2);
const worst = (words) => [...words].reduce((one, other) => (rank(other) > rank(one) ? other : one), [...words][0]);

/** Return the finish_reason of a choice; null for what servers write where there is none. */
function reasonOf(choice) {
  const reason = choice.finish_reason ?? choice.finishReason;
  const isOne = typeof reason === "string" && !["", "null", "none"].includes(reason.trim().toLowerCase());
  return isOne ? short(reason) : null;
}

/** Return what a delta or a message brings: text, refusal, thoughts, calls of tools, and whether some is unread. */
function view(given) {
  const delta = isObject(given) ? given : { content: given };
  const text = textOf(delta.content);
  const thought = textOf(delta.reasoning_content || delta.reasoning);
  const called = Array.isArray(delta.tool_calls) ? delta.tool_calls : [{ function: delta.function_call }];
  const calls = called.some((call) => Object.values(asObject(asObject(call).function)).some(Boolean));
  const isThought = Boolean(asObject(asObject(delta.extra_content).google).thought); // Gemini
  const isBeside = !calls && ["tool_calls", "audio", "images"].some((name) => !isNothing(delta[name]));
  return {
    text: isThought || delta.role === "tool" ? "" : text, // MiniMax: what a search found
    thought: thought || (isThought ? text : ""),
    refusal: textOf(delta.refusal),
    calls,
    role: delta.role,
    opens: Boolean(delta.role),
    isUnread: isUnread(delta.content) || isBeside,
  };
}

/** Return the counts of tokens, wherever a server puts them; null for none. */
function usageIn(payload) {
  const places = [payload, [payload.choices].flat()[0], payload.x_groq]; // OpenAI, Moonshot, Groq
  const counts = places.map((place) => asObject(asObject(place).usage));
  return counts.find((usage) => Object.keys(usage).length) ?? null;
}

// What a server says of its own failure, in one of many forms.

// What servers say of the request, the key, the account or their load, and not of an answer that broke.
const REFUSALS = new RegExp(
  "contextlength|(prompt|request|input)toolong|model.*notfound|contentpolicy|ratelimit|toomanyrequests|overload" +
    "|capacity|insufficient(user|account)?(quota|balance|credit)|billing|authentication|unauthori[sz]ed" +
    "|(invalid|incorrect)apikey",
  "i",
);
const MESSAGES = ["message", "msg", "status_msg", "error_msg", "error_message", "detail", "title", "text"];
const NUMBERS = ["code", "status", "status_code", "statusCode"];
const KINDS = ["code", "type", "error_code", "status_code", "statusCode", "http_code", "status", "error_type"];
const NO_ERROR = [undefined, null, 0, "0", ""];

/** Return the words of the error that a payload is; null for an ordinary payload. */
function errorIn(payload) {
  const { error, x_groq: groq, base_resp: base, errors } = payload;
  if (!isNothing(error)) return typeof error === "boolean" ? wordsOf({ ...payload, error: null }) : wordsOf(error);
  if (!isNothing(asObject(groq).error)) return wordsOf(groq.error);
  if (isObject(base) && !NO_ERROR.includes(base.status_code)) return wordsOf(base);
  if (!isNothing(errors)) return wordsOf(errors);
  const isNamed = payload.object === "error" || payload.type === "error" || !NO_ERROR.includes(payload.error_code);
  if (isNamed || (payload.error_message && payload.choices === undefined)) return wordsOf({ ...payload, error: null });
  const isOfDetail = ["choices", "data", "object", "output", "response"].every((name) => payload[name] === undefined);
  return !isNothing(payload.detail) && isOfDetail ? wordsOf(payload.detail) : null;
}

/** Return the words of a payload that is no chunk, and that only its values show to be an error. */
function unmarkedErrorIn(payload) {
  if (!MESSAGES.some((name) => payload[name] && typeof payload[name] === "string")) return null;
  const isHttpLike = NUMBERS.some((name) => /^[45]\d\d(\d\d)?$/.test(payload[name]));
  const isOne = payload.success === false || ["error", "failed", "fail"].includes(payload.status) || isHttpLike;
  return isOne ? wordsOf(payload) : null;
}

/** Return the words of an error: a sentence, an object, one in another, or a list of them. */
function wordsOf(error, depth = 0) {
  if (Array.isArray(error) && depth < 3) {
    const lines = error.slice(0, 3).map((entry) => {
      const place = Array.isArray(asObject(entry).loc) ? entry.loc.filter((name) => name !== "body").join(".") : "";
      return (place ? `${place}: ` : "") + wordsOf(entry, depth + 1); // FastAPI
    });
    return short(lines.join("; ")) || "no message";
  }
  if (!isObject(error)) return short(String(error)) || "no message";
  const message = MESSAGES.map((name) => error[name]).find((text) => text && typeof text === "string");
  const inner = error.error || (message === undefined && error.detail);
  if (!isNothing(inner) && depth < 3 && (message === undefined || isObject(inner))) return wordsOf(inner, depth + 1);
  const kinds = KINDS.map((name) => error[name]).filter((kind) => kind && kind !== "error");
  const code = kinds.find((kind) => ["string", "number"].includes(typeof kind));
  const words = message ?? (Object.keys(error).length ? JSON.stringify(error) : "no message");
  return short(code && message && !message.includes(code) ? `${message} (${code})` : words);
}

/** Return the words for an HTTP status other than 200: JSON, a line of plain text, or nothing of a web page. */
async function httpError(response, pieces) {
  const body = await all("", pieces).catch(() => "");
  const payload = [parse(body)].flat()[0];
  const plain = body.trim().startsWith("<") ? "" : short(body).slice(0, 200);
  const words = isObject(payload) ? (errorIn(payload) ?? wordsOf(payload)) : plain;
  return `the server answered ${response.status} ${response.statusText}`.trim() + (words ? `: ${words}` : "");
}
