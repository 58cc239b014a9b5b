// SPDX-License-Identifier: MIT
// Copyright (c) 2026 The smai authors. Copy this file, with sse.js; keep these two lines.

/**
 * Reads the streamed answer of an OpenAI-compatible chat API from a fetch, and says whether it is complete.
 *
 *     import { read } from "./verdict.js";
 *     const response = await fetch("/v1/chat/completions", { method: "POST", headers, body, signal });
 *     const { verdict, why, text } = await read(response, (delta) => paragraph.append(delta));
 *
 * The rules are those of `smai decode`. An answer is complete if the server said so with a suitable finish_reason,
 * nothing else that it sent contradicts that, and every part of it could be read.
 */

import { EventParser, textOf } from "./sse.js";

/** @typedef {"complete" | "incomplete" | "refused" | "stopped"} Verdict */
/**
 * @typedef {object} Result
 * @property {Verdict} verdict incomplete: a part is missing; refused: the server sent an error or a refusal instead of
 *   an answer; stopped: the fetch was aborted
 * @property {string} why the words for a verdict other than complete, the server's own if it has any
 * @property {string} text all the text that arrived
 * @property {string[]} calls the names of the tools that the model calls
 * @property {string | null} reason the finish_reason, the worst of several
 * @property {string} model as the server names it, or empty
 * @property {object | null} usage as the server counts it
 */

const LIMIT = 16 * 1024 * 1024; // characters of a body in one piece
const GRACE_MS = 5000; // for usage and [DONE], after a reason that is final
const ERROR_BODY_MS = 3000;
const ERROR_BODY = 65536; // characters
const CHOICES = 1000;

/** Ends the reading early. `kind` says when it matters: see Answer.result. */
class End extends Error {
  constructor(verdict, message, kind = verdict) {
    super(message);
    Object.assign(this, { verdict, kind });
  }
}
const incomplete = (why, kind = "broken") => new End("incomplete", why, kind);
const refused = (why) => new End("refused", why);

/**
 * Read `response` to the end of the answer, even if the connection stays open after it.
 * @param {Response} response
 * @param {(text: string) => void} onText gets each piece of the text, without half characters
 * @param {(text: string) => void} onThought gets the reasoning before the answer
 * @param {{ choices?: number | null }} options how many answers were requested; null if unknown
 * @returns {Promise<Result>} throws only what `onText` and `onThought` throw
 */
export async function read(response, onText = () => {}, onThought = () => {}, { choices = null } = {}) {
  const reader = (response.body ?? new Blob([]).stream()).getReader();
  const answer = new Answer(onText, onThought, choices);
  let [end, grace, hasLeft] = [null, null, false];
  const leave = () => {
    hasLeft = true;
    reader.cancel().catch(() => {});
  };
  try {
    if (!response.ok) throw refused(await httpError(response, reader));
    for await (const event of eventsOf(response, reader)) {
      answer.record(event);
      if (answer.isOver) break;
      if (answer.isFinal) grace ??= setTimeout(leave, GRACE_MS);
      else grace = clearTimeout(grace);
    }
    // A body that ends with its connection looks the same if it was cut. Browsers report the difference.
    const isFramed = ["transfer-encoding", "content-length"].some((name) => response.headers.has(name));
    if (!answer.isOver && !hasLeft) answer.endBody(isFramed);
  } catch (error) {
    if (!(error instanceof End)) throw error;
    if (error.kind === "cut") answer.endBody(false);
    end = error;
  } finally {
    clearTimeout(grace);
    leave();
    answer.flush();
  }
  return answer.result(end);
}

/** Yield the text of a body; a failure of the network becomes an End. */
async function* textIn(reader) {
  try {
    yield* textOf(reader);
  } catch (error) {
    // The Fetch standard makes every network error a TypeError. Anything else is the reason of an abort.
    if (!(error instanceof TypeError)) throw new End("stopped", "stopped");
    throw incomplete("the connection broke before the answer was complete", "cut");
  }
}

/** Yield the content of a body as { name, data }: server-sent events, or one piece of JSON with the name `body`. */
async function* eventsOf(response, reader) {
  if (/^text\/html\b/i.test(response.headers.get("content-type") ?? "")) throw refused(WEB_PAGE);
  const parser = new EventParser();
  const texts = textIn(reader);
  let [opening, hasOpened, isEmpty] = ["", false, true]; // the first line that is not blank
  for await (const text of texts) {
    if (!hasOpened) {
      opening = (opening + text).trimStart();
      if (opening[0] === "<") throw refused(WEB_PAGE);
      if (opening[0] === "{" || opening[0] === "[") return yield { name: "body", data: await all(opening, texts) };
      hasOpened = /[\r\n]/.test(opening) || opening.length > 100;
    }
    for (const event of push(parser, text)) {
      isEmpty = false;
      yield event;
    }
  }
  const { name, data } = parser.unfinished;
  const isWhole = (part) => part.trim() === "[DONE]" || name === "error" || isObject(withoutList(parse(part)));
  for (const part of isWhole(data) ? [data] : partsOf(data)) {
    if (isWhole(part)) yield { name, data: part };
    else if (beginsLikeJson(part)) throw incomplete("the stream ended within an event");
  }
  if (isEmpty && !FIELDS.some((field) => opening.startsWith(field) || field.startsWith(opening))) {
    throw refused("the server answered something that is not a completion");
  }
}

/** Return the data of each event in `data`, if a server left out what separates them, or named the field twice. */
const partsOf = (data) => data.replace(/^data:/gm, "").split(/(?<=[\]}l])\n(?=[[{n])|(?<=})(?=[[{])/);

const WEB_PAGE = "the server answered a web page, not a completion";
const FIELDS = ["data:", "event:", "id:", "retry:", ":"];

function push(parser, text) {
  try {
    return parser.push(text);
  } catch (error) {
    throw incomplete(`${error.message}`);
  }
}

/** Return a body in one piece. A cut body is accepted if it is complete JSON, or more than one object. */
async function all(opening, texts) {
  const pieces = [opening];
  let length = opening.length;
  try {
    for await (const text of texts) {
      pieces.push(text);
      length += text.length;
      if (length > LIMIT) throw incomplete("the answer is too large");
    }
  } catch (error) {
    const body = pieces.join("");
    if (parse(body) === undefined && !hasMore(body)) throw error;
  }
  return pieces.join("");
}

/** Return the words for an HTTP status that is not a success: JSON or a line of plain text, but never a web page. */
async function httpError(response, reader) {
  let body = "";
  const timer = setTimeout(() => reader.cancel().catch(() => {}), ERROR_BODY_MS);
  try {
    for await (const text of textIn(reader)) {
      body += text;
      if (body.length > ERROR_BODY) break;
    }
  } catch (error) {
    if (error.kind !== "cut") throw error; // of a body that was cut, what came is shown
  } finally {
    clearTimeout(timer);
  }
  const payload = [parse(body)].flat()[0];
  const plain = body.trim().startsWith("<") ? "" : short(body).slice(0, 200);
  const words = isObject(payload) ? (errorIn(payload) ?? wordsIn(payload)) : plain;
  return `the server answered ${response.status} ${response.statusText}`.trim() + (words ? `: ${words}` : "");
}

// JSON as servers send it.

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const asObject = (value) => (isObject(value) ? value : {});
/** Return the first object of a list if it is an error, as Gemini sends them; any other value as it is. */
const withoutList = (value) => (isError(asObject([value].flat()[0]).error) ? [value].flat()[0] : value);
const beginsLikeJson = (text) => /^\s*[{[]/.test(text);
const short = (text, limit = 500) => {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > limit ? `${line.slice(0, limit)}...` : line;
};
/** Whether a value counts as absent: null, false, 0, "", and an empty list or object. */
const isNothing = (value) => !value || (typeof value === "object" && !Object.keys(value).length);
/** Whether a body is more than one JSON object, as in the streams of other APIs. */
const hasMore = (body) => parse(body) === undefined && isObject(parse(body.trim().split("\n")[0]));

// Members whose numbers are text: some servers send tokens that look like numbers as JSON numbers (cloudflare/ai#651).
const TEXT_PLACES = (
  "content text value delta message refusal arguments input choices reasoning_content reasoning reasoning_text thinking"
).split(" ");
const NUMBER_IN_TEXT = new RegExp(`"(?:${TEXT_PLACES.join("|")})"\\s*:[\\s[]*(?:-?[0-9]|-?Infinity|NaN)`);
const NUMBER = /-?(?:[0-9][0-9.eE+-]*|Infinity|NaN)/g;
const NUMBER_MARK = "\0";

/** Parse JSON; undefined for other text. Numbers in a text place become strings with the characters on the wire. */
function parse(text) {
  try {
    const payload = JSON.parse(text);
    return NUMBER_IN_TEXT.test(text) ? parseExactly(text) : payload;
  } catch {
    try {
      // Python servers send NaN and Infinity, mostly for log probabilities.
      const payload = JSON.parse(outsideStrings(text, (part) => part.replace(/-?\b(?:Infinity|NaN)\b/g, "null")));
      return NUMBER_IN_TEXT.test(text) ? parseExactly(text) : payload;
    } catch {
      return undefined;
    }
  }
}

/** Parse JSON that is known to be valid. */
function parseExactly(text) {
  const marked = outsideStrings(text, (part) => part.replace(NUMBER, '"\\u0000$&"'));
  const settle = (value, isText) => {
    if (Array.isArray(value)) return value.map((entry) => settle(entry, isText));
    if (typeof value !== "string" || value[0] !== NUMBER_MARK) return value;
    return isText ? value.slice(1) : Number(value.slice(1));
  };
  const isEntry = (key, holder) => Array.isArray(holder);
  return JSON.parse(marked, function revive(key, value) {
    return isEntry(key, this) ? value : settle(value, TEXT_PLACES.includes(key));
  });
}

/** Return JSON with `change` applied outside its strings, in linear time even if a string has no end. */
function outsideStrings(text, change) {
  const parts = [];
  for (let at = 0; at < text.length; ) {
    const begin = text.indexOf('"', at);
    parts.push(change(begin < 0 ? text.slice(at) : text.slice(at, begin)));
    if (begin < 0) break;
    at = endOfString(text, begin);
    parts.push(text.slice(begin, at));
  }
  return parts.join("");
}

function endOfString(text, begin) {
  for (let end = text.indexOf('"', begin + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text[end - 1 - backslashes] === "\\") backslashes += 1;
    if (backslashes % 2 === 0) return end + 1;
  }
  return text.length;
}

// The value in the place of a text: text, or known not to be part of the answer, or unread.

const THOUGHTS = (
  "reasoning reasoning.encrypted reasoning.summary reasoning.text reasoning_text redacted_thinking summary_text " +
  "thinking thought"
).split(" ");
const SOURCES = ["annotation", "annotations", "citation", "citations", "reference", "references"];
const CALLS = ["custom_tool_call", "function_call", "tool_call", "tool_use"];
const TEXT_TYPES = ["text", "output_text", "input_text"];
const MEDIA_MEMBERS = ["audio", "file", "image", "image_url", "input_audio", "video", "video_url"];
const MEDIA = { image: "an image", audio: "audio", video: "a video", file: "a file" };
const THOUGHT_MEMBERS = ["text", "thinking", "reasoning", "summary", "content"];
const DEPTH = 4;

const mediaName = (kind) => Object.entries(MEDIA).find(([word]) => kind.includes(word))?.[1];
const unread = (kind, name, characters = 0) => ({ kind, name, characters });
const contentOf = (more) => ({ text: "", reasoning: "", refusal: "", unread: [], ...more });

/** Read a content: a string, null, a part with a text in it, or a list of parts. */
function readContent(value, place, isAlone = false) {
  if (typeof value === "string") return contentOf({ text: value });
  if (value === null || value === undefined) return contentOf();
  if (typeof value === "boolean") return contentOf({ text: value ? "true" : isAlone ? "false" : "" });
  if (typeof value === "number") return contentOf({ text: String(value) });
  const parts = Array.isArray(value) ? value : [value];
  const given = parts.filter((part) => part === 0 || part === false || !isNothing(part));
  const read = given.map((part) => readPart(part, place, isAlone));
  if (read.length === 1) return read[0];
  const join = (name) => read.map((content) => content[name]).join("");
  const [text, reasoning, refusal] = [join("text"), join("reasoning"), join("refusal")];
  return contentOf({ text, reasoning, refusal, unread: read.flatMap((content) => content.unread) });
}

function readPart(part, place, isAlone) {
  if (Array.isArray(part)) return contentOf({ unread: [unread("text", `a list in ${place}`)] });
  if (!isObject(part)) return readContent(part, place, isAlone);
  const kind = typeof part.type === "string" ? part.type : "";
  if (THOUGHTS.includes(kind)) return contentOf({ reasoning: readThoughts(part) });
  if (SOURCES.includes(kind)) return contentOf();
  if (kind === "refusal") return contentOf({ refusal: readContent(part.refusal || part.text, place).text });
  if (CALLS.includes(kind)) return contentOf({ unread: [unread("call", `a tool call in ${place}`)] });
  const names = [kind, ...MEDIA_MEMBERS.filter((member) => !isNothing(part[member]))].map(mediaName).filter(Boolean);
  const media = names.map((name) => unread("media", name));
  let text = "text" in part ? part.text : part.content;
  if (isObject(text) && "value" in text) text = text.value; // as in OpenAI's Assistants API
  const isKnown = media.length || "text" in part || "content" in part || TEXT_TYPES.includes(kind);
  if (!isKnown || (typeof text === "object" && !isNothing(text))) {
    const name = kind ? `a part of type ${short(kind, 40)} in ${place}` : `an object in ${place}`;
    return contentOf({ unread: [...media, unread("text", name)] });
  }
  const content = readContent(text, place, isAlone);
  return media.length ? { ...content, unread: media } : content;
}

/** Return the text in a value that holds a model's reasoning. */
function readThoughts(value, depth = 0) {
  if (typeof value === "string") return value;
  if (depth > DEPTH || typeof value !== "object" || value === null) return "";
  if (Array.isArray(value)) return value.map((entry) => readThoughts(entry, depth + 1)).join("");
  return THOUGHT_MEMBERS.map((name) => readThoughts(value[name], depth + 1)).find(Boolean) ?? "";
}

// One choice of a chunk, or of an answer in one piece.

const MEDIA_PLACES = ["audio", "image", "images", "video", "videos"];
const REASONING = ["reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details"];
// Members that are read, or that are known not to be text of the answer.
const KNOWN = new Set([
  ...MEDIA_PLACES,
  ...REASONING,
  ...(
    "annotations channel citations content content_filter_result content_filter_results context created end_turn " +
    "error extra_content files finish_details finish_reason finishReason function_call groundingMetadata " +
    "grounding_metadata id index logprobs matched_stop message_id metadata model name native_finish_reason object " +
    "obfuscation prompt_token_ids provider_specific_fields reasoning_signature recipient references refusal role " +
    "safety_ratings safetyRatings search_results seed signature stop_reason stop_sequence system_fingerprint " +
    "thought_signature token_ids tool_call_id tool_calls usage"
  ).split(" "),
]);

/** Return the index of a choice or a call, which some servers write as a string; null without one. */
function numberOf(index) {
  if (typeof index === "string" && /^\d{1,9}$/.test(index)) return Number(index);
  return Number.isInteger(index) ? index : null;
}

/** Read a choice; `place` is where its text is: "delta", or "message" in an answer in one piece. */
function readChoice(given, place) {
  const choice = isObject(given) ? given : { [place]: given };
  const reason = reasonOf(choice);
  let [delta, repeated, missed] = [choice[place], null, []];
  if (!isObject(delta) || "message" in choice || "text" in choice) [delta, repeated, missed] = readOther(choice, place);
  const isAlone = delta.content === false && reason === null && Object.values(delta).every(isNothing);
  const read = addRest(delta, readContent(delta.content, "the content", isAlone));
  let { text, reasoning } = read;
  if (asObject(asObject(delta.extra_content).google).thought && delta.role) [text, reasoning] = ["", text || reasoning];
  if (delta.role === "tool") text = ""; // MiniMax: what a search found
  const lost = [...missed, ...read.unread];
  const isEmpty = !(text || read.refusal || reasoning || read.calls.length || lost.length || repeated);
  return {
    index: numberOf(choice.index) ?? 0,
    reason: delta.role === "tool" ? null : reason,
    text,
    reasoning,
    refusal: read.refusal,
    calls: read.calls,
    unread: isEmpty ? findStrays(choice, delta) : lost,
    repeated,
    namesRole: !isNothing(delta.role),
  };
}

/** Return the delta, the repeated text and the unread parts of a choice that has more than a delta. */
function readOther(choice, place) {
  let [delta, repeated, missed] = [choice[place], null, []];
  if (place === "delta" && !isNothing(choice.message)) {
    const fields = isObject(choice.message) ? choice.message : { content: choice.message };
    const read = addRest(fields, readContent(fields.content, "the message"));
    missed = read.unread;
    repeated = read.text || read.refusal || read.calls.length ? read : null;
  }
  if (delta === null || delta === undefined) {
    delta = choice.delta ?? choice.text; // as in the API before chat
  } else if ("text" in choice && !repeated) {
    const read = readContent(choice.text, "the text");
    missed = read.unread;
    repeated = read.text ? { text: read.text, refusal: "", calls: [] } : null;
  }
  if (delta === false) delta = null;
  return [isObject(delta) ? delta : { content: delta }, repeated, missed];
}

/** Return the content of a whole delta; `read` is that of its content member. */
function addRest(delta, read) {
  const thoughts = REASONING.map((name) => readThoughts(delta[name])).find(Boolean) ?? "";
  const lost = [...read.unread];
  const calls = readCalls(delta, lost);
  for (const name of MEDIA_PLACES) if (!isNothing(delta[name])) lost.push(unread("media", mediaName(name)));
  const refusal = readContent(delta.refusal, "the refusal");
  lost.push(...refusal.unread);
  const { text, reasoning } = read;
  return { text, reasoning: reasoning + thoughts, refusal: read.refusal || refusal.text, calls, unread: lost };
}

function readCalls(delta, lost) {
  let calls = delta.tool_calls;
  const single = delta.function_call; // some servers send an empty one
  const isSingle = isNothing(calls) && isObject(single) && !Object.values(single).every(isNothing);
  if (isSingle) calls = [{ function: single, index: 0 }];
  if (!Array.isArray(calls)) calls = isNothing(calls) ? [] : [calls];
  const parts = [];
  for (const call of calls) {
    const part = isObject(call) ? readCall(call) : null;
    if (part && (part.id || part.name || part.arguments)) parts.push(part);
    else if (!isNothing(call) && !part) lost.push(unread("call", "a tool call"));
  }
  return parts;
}

/** Return a part of a function call (even without its object) or of a custom tool call; null for anything else. */
function readCall(call) {
  const number = numberOf(call.index);
  const id = readContent(call.id, "the id of a call").text;
  let held = isObject(call.custom) ? call.custom : isObject(call.function) ? call.function : null;
  if (!held && "arguments" in call) held = call;
  if (!held) {
    const { id: _, index, type, ...rest } = call;
    return Object.values(rest).every(isNothing) ? { number, id, name: "", arguments: "" } : null;
  }
  const value = held === call.custom ? held.input : "arguments" in held ? held.arguments : held.parameters; // TGI 1.4
  if (Array.isArray(value) && value.length) return null;
  const name = readContent(held.name, "the name of a call").text;
  const text = isObject(value) ? JSON.stringify(value) : readContent(value, "the arguments", !name && !id).text;
  return { number, id, name, arguments: text, isCustom: held === call.custom };
}

/** Return the unread text in members that the API does not have. */
function findStrays(choice, delta) {
  const entries = Object.entries(choice).filter(([name]) => !["delta", "message", "text"].includes(name));
  const message = choice.message === delta ? {} : asObject(choice.message);
  const odd = [...entries, ...Object.entries(delta), ...Object.entries(message)].filter(([name]) => !KNOWN.has(name));
  const found = odd.map(([name, value]) => [name, textLength(value, 0)]).filter(([, length]) => length);
  const characters = found.reduce((sum, [, length]) => sum + length, 0);
  return characters ? [unread("stray", `text in ${short(found[0][0], 40)}`, characters)] : [];
}

function textLength(value, depth) {
  if (typeof value === "string") return value.length;
  if (depth >= DEPTH || typeof value !== "object" || value === null) return 0;
  return Object.values(value).reduce((sum, member) => sum + textLength(member, depth + 1), 0);
}

// Finish reasons of servers for an answer that broke off, beyond those that rank() knows. Gateways turn them into
// "stop", and send them elsewhere.
const FAILURES = (
  "abort escalation image_other insufficient_system_resource malformed_function_call malformed_response " +
  "missing_thought_signature model_context_window_exceeded network_error no_image pause_turn repetition " +
  "too_many_tool_calls unexpected_tool_call"
).split(" ");

/** Return the finish_reason of a choice; null also for what servers send instead of null. */
function reasonOf(choice) {
  let reason = choice.finish_reason ?? choice.finishReason;
  if (typeof reason !== "string") return null;
  if (reason === "stop") {
    const originals = [choice, asObject(choice.provider_specific_fields)].map((fields) => fields.native_finish_reason);
    const isWorse = (word) => FAILURES.includes(word.toLowerCase()) || rank(word) > 1;
    reason = originals.find((word) => typeof word === "string" && isWorse(word)) ?? reason;
  }
  return ["", "null", "none"].includes(reason.trim().toLowerCase()) ? null : short(reason, 100);
}

/** The tool calls of an answer, joined from the parts in which they arrive. */
class ToolCalls {
  #calls = [];
  #byNumber = new Map();
  #byId = new Map();

  get names() {
    return this.#calls.map(({ name }) => name);
  }

  add(parts) {
    for (const part of parts) {
      const call = this.#callOf(part);
      if (part.id && !call.id) this.#byId.set((call.id = part.id), call);
      if (part.name !== call.name) call.name += part.name; // repeated in each part, or sent in pieces
      if (call.arguments === "{}" && part.arguments && !part.isCustom) call.arguments = ""; // LiteLLM
      call.arguments += part.arguments;
      call.parts += 1;
    }
  }

  /** Return what a call that comes as a whole adds to those so far; null if all of it has arrived before. */
  newIn(call) {
    for (const known of this.#calls) {
      if (!known.id || !call.id) {
        if (known.name === call.name && known.arguments === call.arguments) return null;
      } else if (known.id === call.id) {
        const soFar = known.arguments === "{}" ? "" : known.arguments;
        const isNew = call.arguments.startsWith(soFar) && ![soFar, known.arguments].includes(call.arguments);
        return isNew ? { ...call, number: null, name: "", arguments: call.arguments.slice(soFar.length) } : null;
      }
    }
    return call;
  }

  #callOf(part) {
    let call = !part.name && this.#calls.at(-1);
    if (part.number !== null) call = this.#byNumber.get(part.number);
    else if (part.id) call = this.#byId.get(part.id);
    if (call && beginsAnother(part, call)) call = null;
    if (call) return call;
    const begun = { id: "", name: "", arguments: "", parts: 0 };
    this.#calls.push(begun);
    if (part.number !== null) this.#byNumber.set(part.number, begun);
    return begun;
  }
}

/** Whether a part begins another call under the index of `call`. LM Studio gives each part an id of its own. */
function beginsAnother(part, call) {
  const hasOtherId = part.id && call.id && part.id !== call.id;
  if (part.name && part.id && call.id) return hasOtherId;
  return (part.name || hasOtherId) && call.name && isAtOnce(call);
}

/** Whether the arguments of a call were complete after its first parts: some servers reuse an index. */
const isAtOnce = (call) => call.parts <= 2 && parse(call.arguments) !== undefined;

/** The text of an answer so far, which a server may repeat. */
class RunningText {
  isContradicted = false;
  #text = "";
  #blank = ""; // white space at its end, which a repetition may leave out
  #hasDeltas = false;

  addDelta(text) {
    this.#hasDeltas = true;
    this.#add(text);
  }

  /** Return the new part of a text that repeats everything so far. Without any delta, it may be a new piece instead. */
  newIn(text) {
    const isAgain = text.length >= this.#text.length && text.startsWith(this.#text);
    const after = isAgain ? text.slice(this.#text.length) : "";
    const isSame = isAgain && this.#blank.startsWith(after);
    const isLonger = isAgain && !isSame && after.startsWith(this.#blank);
    const isOther = !isSame && !isLonger;
    if (isOther && this.#hasDeltas && text.length > this.#text.length + this.#blank.length) this.isContradicted = true;
    const fresh = isLonger ? after.slice(this.#blank.length) : isOther && !this.#hasDeltas ? text : "";
    this.#add(fresh);
    return fresh;
  }

  #add(text) {
    const added = this.#blank + text;
    const end = added.trimEnd().length;
    const kept = added.length - end > 256 ? added.length : end;
    this.#text += added.slice(0, kept);
    this.#blank = added.slice(kept);
  }
}

// How an answer ends.

const STOP = ["eos", "eos_token", "end", "end_turn", "stop_sequence", "complete", "normal"];
const FOR_CALLS = ["function_call", "tool_use", "tool_call"];
const LENGTH = ["max_tokens", "max_output_tokens", "model_length"];
const FILTERED = (
  "safety recitation prohibited_content blocklist spii sensitive guardrail_intervened content_filtered refusal"
).split(" ");
const NORMAL = ["stop", "tool_calls"];
const WORSE = ["length", "content_filter", "error"]; // a word in neither list is between the two

/** Return the word of the API reference for a finish_reason; an unknown one in lower case. */
function canonical(reason) {
  const word = reason.trim().toLowerCase().replace(/^finishreason\./, "").replaceAll("-", "_");
  if (STOP.includes(word)) return "stop";
  if (FOR_CALLS.includes(word)) return "tool_calls";
  if (LENGTH.includes(word)) return "length";
  const isFilter = FILTERED.includes(word.replace(/^image_/, "")) || word.startsWith("content_filter:");
  return isFilter ? "content_filter" : word;
}

const rank = (reason) => (NORMAL.includes(canonical(reason)) ? 0 : WORSE.indexOf(canonical(reason)) + 2);
const worst = (reasons) => reasons.reduce((one, other) => (rank(other) > rank(one) ? other : one), reasons[0]);

/**
 * What the server has said about the end of one choice.
 *
 * Some servers send a reason in every chunk, from the first one with text: it is accepted once [DONE] or the end
 * of the body confirms it. Text after a reason cancels it. Of several reasons, the worst is used.
 */
class ChoiceEnd {
  reasons = new Set();
  hasEnded = false;
  isBelievable = false;
  isForCalls = false;
  isUntrusted = false; // text came after a normal reason
  hasResumed = false; // text came after a reason for calls
  #isNew = true;
  #goesWithout = false; // text came without a reason

  /** Whether its end is certain, however the connection ends. */
  get isFinal() {
    return this.isBelievable && !this.isForCalls;
  }

  record(reason, hasContent, hasText, namesRole) {
    if (hasContent && this.hasEnded) {
      this.isUntrusted = [...this.reasons].some((known) => canonical(known) === "stop");
      this.hasResumed = this.isForCalls && hasText;
      this.hasEnded = this.isBelievable = this.#goesWithout = false;
    }
    if (reason !== null) {
      const mayBeInEveryChunk = hasContent || this.isUntrusted || (namesRole && this.#isNew);
      this.reasons.add(reason);
      this.hasEnded = true;
      this.isBelievable = this.#goesWithout || !mayBeInEveryChunk;
      this.isForCalls = canonical(reason) === "tool_calls";
    } else if (hasText) {
      this.#goesWithout = true;
    }
    this.#isNew = false;
  }
}

const OF_CHOICE = ["delta", "finish_reason", "index", "message", "text"]; // a lone choice in place of the list

/** One answer as it arrives. */
class Answer {
  #onText;
  #onThought;
  #due; // how many choices were asked for, or null
  #text = "";
  #held = ""; // the first half of a surrogate pair that two deltas bring
  #running = new RunningText();
  #calls = new ToolCalls();
  #refusal = "";
  #hasReasoning = false;
  #model = "";
  #usage = null;
  #error = null; // the server's words for its failure
  #unread = new Map(); // the first of each kind
  #strayCharacters = 0;
  #index = null; // of the choice that is the answer
  #highestIndex = 0;
  #main = new ChoiceEnd();
  #others = new Map();
  #finalOthers = 0;
  #isDone = false;
  #isInOnePiece = false;
  #bodyEnd = null; // "framed" or "bare"

  constructor(onText, onThought, choices) {
    this.#onText = onText;
    this.#onThought = onThought;
    this.#due = choices;
    if (choices > 1) this.#index = 0;
  }

  /** Whether the rest of the stream can be ignored. */
  get isOver() {
    return this.#isDone || this.#error !== null;
  }

  /** Whether the answer has ended, however the connection ends. */
  get isFinal() {
    return this.#main.isFinal && this.#finalOthers >= this.#dueOthers;
  }

  get #dueOthers() {
    return this.#due === null ? this.#others.size : this.#due - 1;
  }

  endBody(isFramed) {
    this.#bodyEnd = isFramed ? "framed" : "bare";
  }

  /** Record an event. Throws an End if it cannot be part of an answer. */
  record({ name, data }) {
    if (name === "body") return this.#recordBody(data);
    if (data.trim() === "[DONE]") return void (this.#isDone = true);
    const payload = withoutList(parse(data));
    if (name !== "message" && name.trim().toLowerCase() === "error") {
      this.#error = isObject(payload) ? (errorIn(payload) ?? wordsIn(payload)) : short(data) || "no message";
    } else if (isObject(payload)) {
      this.#recordPayload(payload, "delta", name === "message");
    } else if (payload === undefined && beginsLikeJson(data)) {
      if (this.#recordParts(data)) return;
      throw incomplete(`an event is not JSON: ${short(data, 80)}`, "malformed");
    } else if (name === "message" && !isSignOfLife(data.trim().toLowerCase())) {
      if (this.#recordParts(data)) return;
      throw incomplete(`an event is not ${payload === undefined ? "JSON" : "a JSON object"}: ${short(data, 80)}`);
    }
  }

  /** Record the events in `data`, if a server left out what separates them, or named the field twice. */
  #recordParts(data) {
    const parts = partsOf(data);
    const isOne = parts.length === 1 && parts[0] === data;
    if (!isOne) parts.forEach((part) => this.record({ name: "message", data: part }));
    return !isOne;
  }

  #recordBody(data) {
    let payload = withoutList(parse(data));
    if (hasMore(data)) {
      throw refused(`the server answered more than one JSON object: ${short(data, 80)}`);
    }
    if (!isObject(payload)) throw incomplete(`the answer is not a JSON object: ${short(data, 80)}`);
    payload = unwrapped(payload);
    this.#recordPayload(payload, "message", true);
    this.#isDone = true;
    this.#isInOnePiece = this.#index !== null;
    if (this.#error !== null && !this.#text) throw refused(`the server answered with an error: ${this.#error}`);
    if (this.#error === null && !Array.isArray(payload.choices) && isNothing(asObject(payload.choices))) {
      throw refused(`the server answered JSON that is not a completion: ${short(data, 80)}`);
    }
  }

  #recordPayload(payload, place, isMessage) {
    if (typeof payload.model === "string" && payload.model) this.#model = payload.model;
    this.#usage = usageIn(payload) ?? this.#usage;
    this.#error = errorIn(payload);
    let { choices } = payload;
    if (isObject(choices) && !isNothing(choices)) {
      choices = OF_CHOICE.some((name) => name in choices) ? [choices] : Object.values(choices); // PHP
    }
    if (!Array.isArray(choices) || !choices.length) return this.#recordOther(payload, isMessage);
    const read = choices.filter((choice) => (choice ?? null) !== null).map((choice) => readChoice(choice, place));
    if (!read.length) read.push(readChoice({}, place));
    const lowest = read.reduce((one, other) => (other.index < one.index ? other : one));
    this.#recordChoices(lowest, read.filter((choice) => choice !== lowest));
    for (const holder of choices.flatMap((choice) => [asObject(choice), asObject(asObject(choice).delta)])) {
      if (isError(holder.error)) this.#error ??= wordsIn(holder.error);
    }
  }

  /** Record a payload that is not about a choice. */
  #recordOther(payload, isMessage) {
    if (!isNothing(payload.choices)) this.#note(unread("text", "choices that are not a list"));
    if (!isMessage || "choices" in payload) return;
    this.#error ??= unmarkedErrorIn(payload);
    const isKnown = usageIn(payload) || ["ping", "keepalive", "heartbeat"].includes(payload.type);
    if (!isKnown) this.#note(unread("foreign", "an event that is not of this API"));
  }

  #recordChoices(first, others) {
    let main = first;
    if (main.index !== this.#index) {
      if (this.#index !== null && this.#due !== 1) {
        others = [first, ...others];
        main = { ...first, text: "", reasoning: "", refusal: "", calls: [], unread: [], repeated: null, reason: null };
      } else {
        this.#index = main.index;
      }
    }
    if (main.text) this.#running.addDelta(main.text);
    if (this.#due === 1) main = this.#withOnlyChoice(main, others);
    this.#calls.add(main.calls);
    let { text, refusal } = main;
    let calls = main.calls.length;
    if (main.repeated) {
      const fresh = main.repeated.calls.map((call) => this.#calls.newIn(call)).filter(Boolean);
      this.#calls.add(fresh);
      calls += fresh.length;
      if (main.repeated.text) text += this.#running.newIn(main.repeated.text);
      if (this.#running.isContradicted) this.#note(unread("text", "a repetition of the text that differs from it"));
      if (!this.#refusal) refusal ||= main.repeated.refusal;
    }
    this.#refusal = (this.#refusal + refusal).slice(0, 1000);
    main.unread.forEach((part) => this.#note(part));
    const hasText = Boolean(text || calls || refusal);
    this.#hasReasoning ||= Boolean(main.reasoning);
    this.#main.record(main.reason, hasText || Boolean(main.reasoning), hasText, main.namesRole);
    if (text) this.#take(text);
    if (main.reasoning) this.#onThought(main.reasoning);
    for (const other of others) this.#recordOtherChoice(other);
  }

  /** Some servers count tokens in the index of the only choice, and some send its calls in a choice of their own. */
  #withOnlyChoice(main, others) {
    let isSeveral = main.text && main.index < this.#highestIndex;
    if (main.text) this.#highestIndex = Math.max(this.#highestIndex, main.index);
    let { calls, refusal } = main;
    const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);
    for (const { text, repeated, ...other } of others) {
      isSeveral ||= text || repeated?.text;
      calls = [...calls, ...other.calls.filter((call) => !calls.some((known) => isSame(known, call)))];
      calls = [...calls, ...(repeated?.calls ?? []).map((call) => this.#calls.newIn(call)).filter(Boolean)];
      refusal ||= repeated?.refusal;
      other.unread.forEach((part) => this.#note(part));
    }
    if (isSeveral) this.#note(unread("text", "a second answer, although one was requested"));
    return { ...main, calls, refusal: refusal ?? "" };
  }

  #recordOtherChoice({ index, reason, text, reasoning, refusal, calls, repeated, namesRole }) {
    this.#refusal = (this.#refusal + refusal).slice(0, 1000);
    if (!this.#others.has(index) && this.#others.size >= CHOICES) return;
    if (!this.#others.has(index)) this.#others.set(index, new ChoiceEnd());
    const end = this.#others.get(index);
    const hasText = Boolean(text || calls.length || refusal || repeated?.text || repeated?.calls.length);
    this.#finalOthers -= end.isFinal;
    end.record(reason, hasText || Boolean(reasoning), hasText, namesRole);
    this.#finalOthers += end.isFinal;
  }

  #note(part) {
    if (!this.#unread.has(part.kind)) this.#unread.set(part.kind, part.name);
    this.#strayCharacters += part.characters;
  }

  #take(delta) {
    const text = this.#held + delta;
    this.#held = /[\ud800-\udbff]$/.test(text.slice(-1)) ? text.at(-1) : "";
    this.#give(text.slice(0, text.length - this.#held.length));
  }

  #give(text) {
    const whole = text.toWellFormed();
    this.#text += whole;
    if (whole) this.#onText(whole);
  }

  /** Deliver the held text at the end. */
  flush() {
    const rest = this.#held;
    this.#held = "";
    this.#give(rest);
  }

  /** Return the Result; `end` is the End that stopped the reading, or null. @returns {Result} */
  result(end) {
    const counts = { malformed: true, broken: !this.#isAnnounced, cut: !this.#isAnnounced };
    const { verdict, message } = end && (counts[end.kind] ?? !this.isFinal) ? end : this.#verdict();
    const [text, calls, model, usage] = [this.#text, this.#calls.names, this.#model, this.#usage];
    return { verdict, why: message, text, calls, reason: worst([...this.#main.reasons]) ?? null, model, usage };
  }

  get #ends() {
    return [this.#main, ...this.#others.values()];
  }

  /** Whether the server has said credibly how each choice ends. */
  get #isAnnounced() {
    const isFramed = this.#bodyEnd === "framed" && !this.#ends.some((end) => end.isUntrusted);
    const isConfirmed = this.#isDone || isFramed;
    const hasEnded = (end) => {
      if (!end.hasEnded) return end.hasResumed && isConfirmed;
      return end.isFinal || isConfirmed || (end.isBelievable && this.#bodyEnd !== null);
    };
    return hasEnded(this.#main) && [...this.#others.values()].filter(hasEnded).length >= this.#dueOthers;
  }

  #verdict() {
    if (this.#error !== null) {
      return (this.#text ? incomplete : refused)(`the server reported an error in the stream: ${this.#error}`);
    }
    if (!this.#isAnnounced) return incomplete(this.#unannounced());
    const reason = worst(this.#ends.flatMap((end) => [...end.reasons])) ?? "stop";
    if (this.#refusal && rank(reason) <= 1) return refused(`the model refused: ${short(this.#refusal)}`);
    if (canonical(reason) === "length") return incomplete("the answer hit the token limit");
    if (canonical(reason) === "content_filter") return incomplete("the answer was withheld by a content filter");
    if (rank(reason)) return incomplete(`the answer ended with finish_reason ${reason}`);
    const lost = this.#lost();
    if (lost) return incomplete(`the server says that it is complete, but a part of it cannot be read: ${lost}`);
    const media = this.#unread.get("media");
    if (media) return incomplete(`the answer contains ${media}, which is not text`);
    return { verdict: "complete", message: "" };
  }

  /** Return the message for the parts that could not be read; undefined if nothing is missing. */
  #lost() {
    const hasAnswer = this.#text || this.#calls.names.length;
    const kinds = hasAnswer ? ["text"] : ["text", "call"];
    if (!(hasAnswer || this.#hasReasoning || this.#refusal)) {
      kinds.push("foreign");
      if (this.#strayCharacters >= 16) kinds.push("stray"); // shorter strings are names and numbers
    }
    const kind = [...this.#unread.keys()].find((known) => kinds.includes(known));
    const isCallDue = this.#main.hasEnded && this.#main.isForCalls && !hasAnswer;
    return this.#unread.get(kind) ?? (isCallDue ? "the tool call that its finish_reason announces" : undefined);
  }

  #unannounced() {
    if (this.#isInOnePiece) return "the answer has no finish_reason";
    if (this.#ends.some((end) => end.hasEnded && !end.isFinal)) {
      return "the stream ended without [DONE], and its finish_reason may be one that came with every chunk";
    }
    if (!this.#isDone) return "the stream ended before finish_reason";
    if (!this.#ends.some((end) => end.reasons.size)) return "the stream ended with [DONE], but without finish_reason";
    return "the stream ended with text after its finish_reason, or with a choice that has none";
  }
}

/** Return the completion that a server wraps in `data` if it does not stream, as Cline's does (cline/cline#12647). */
function unwrapped(payload) {
  const isWrapped = payload.choices === undefined && asObject(payload.data).choices !== undefined;
  return isWrapped && errorIn(payload) === null && unmarkedErrorIn(payload) === null ? payload.data : payload;
}

const SIGNS_OF_LIFE = ["", "ping", "pong", "keepalive", "keep-alive", "heartbeat", "null"];
/** Whether data carries nothing. Some gateways put comments into data. */
const isSignOfLife = (data) => SIGNS_OF_LIFE.includes(data) || data.startsWith(":");

/** Return the token counts, wherever a server puts them; null if there are none. */
function usageIn(payload) {
  const places = [payload, [payload.choices].flat()[0], payload.x_groq]; // OpenAI, Moonshot, Groq
  const counts = places.map((place) => asObject(asObject(place).usage));
  return counts.find((usage) => Object.keys(usage).length) ?? null;
}

// The errors of servers, in their many forms.

const MESSAGES = ["message", "msg", "status_msg", "error_msg", "error_message", "detail", "title", "text"];
const NUMBERS = ["code", "status", "status_code", "statusCode"];
const KINDS = ["code", "type", "error_code", "status_code", "statusCode", "http_code", "status", "error_type"];
/** Whether a value means an error; an empty object does. */
const isError = (value) => isObject(value) || !isNothing(value);
const NO_ERROR = [undefined, null, false, 0, "0", ""];

/** Return the message of an error payload; null for an ordinary payload. */
function errorIn(payload) {
  const { error, x_groq: groq, base_resp: base, errors } = payload;
  const isBlank = isObject(error) && Object.keys(error).length && Object.values(error).every((value) => !value);
  if (isError(error) && !(isBlank && !isNothing(payload.choices))) {
    return typeof error === "boolean" ? wordsIn({ ...payload, error: null }) : wordsIn(error);
  }
  if (isError(asObject(groq).error)) return wordsIn(groq.error);
  if (isObject(base) && !NO_ERROR.includes(base.status_code)) return wordsIn(base);
  if (!isNothing(errors)) return wordsIn(errors);
  const isNamed = payload.object === "error" || payload.type === "error" || !NO_ERROR.includes(payload.error_code);
  if (isNamed || (payload.error_message && payload.choices === undefined)) return wordsIn({ ...payload, error: null });
  const isOfDetail = ["choices", "data", "object", "output", "response"].every((name) => payload[name] === undefined);
  return !isNothing(payload.detail) && isOfDetail ? wordsIn(payload.detail) : null;
}

/** Return the message of a payload that is not a chunk, and that only its values identify as an error. */
function unmarkedErrorIn(payload) {
  if (!MESSAGES.some((name) => payload[name] && typeof payload[name] === "string")) return null;
  const isHttpLike = NUMBERS.some((name) => /^[45]\d\d(\d\d)?$/.test(payload[name]));
  const isOne = payload.success === false || ["error", "failed", "fail"].includes(payload.status) || isHttpLike;
  return isOne ? wordsIn(payload) : null;
}

/** Return the message of an error: a sentence, an object, a nested object, or a list of them. */
function wordsIn(error, depth = 0) {
  if (Array.isArray(error) && depth < 3) {
    const lines = error.slice(0, 3).map((entry) => {
      const place = Array.isArray(asObject(entry).loc) ? entry.loc.filter((name) => name !== "body").join(".") : "";
      return (place ? `${place}: ` : "") + wordsIn(entry, depth + 1); // FastAPI
    });
    return short(lines.join("; ")) || "no message";
  }
  if (!isObject(error)) return short(String(error)) || "no message";
  const message = MESSAGES.map((name) => error[name]).find((text) => text && typeof text === "string");
  const inner = error.error || (message === undefined && error.detail);
  if (!isNothing(inner) && depth < 3 && (message === undefined || isObject(inner))) return wordsIn(inner, depth + 1);
  const kinds = KINDS.map((name) => error[name]).filter((kind) => kind && kind !== "error");
  const code = kinds.find((kind) => ["string", "number"].includes(typeof kind));
  const words = message ?? (Object.keys(error).length ? JSON.stringify(error) : "no message");
  return short(code && message && !message.includes(code) ? `${message} (${code})` : words);
}
