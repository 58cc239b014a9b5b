// SPDX-License-Identifier: MIT
// Copyright (c) 2026 The smai authors. Copy this file; keep these two lines.

/**
 * Reads server-sent events from a fetch, wherever the network cuts the body.
 *
 *     import { events } from "./sse.js";
 *     const response = await fetch(url, { method: "POST", headers, body, signal });
 *     for await (const { name, data } of events(response.body.getReader())) console.log(name, data);
 *
 * It follows the WHATWG HTML standard, section 9.2.6, without `id` and `retry`: a POST is not sent again. It reads a
 * body once, in time that grows with its length. verdict.js says whether the answer in the events is complete.
 */

/** @typedef {{ name: string, data: string }} SseEvent `name` is "message" if the server sent none. */

const BARE_JSON = /^[ \t]*[[{]/;
const ODD_DATA = /^[ \t\uFEFF]*data[ \t]*:(?=[ \t]*[[{])/i;
const LIMIT = 16 * 1024 * 1024; // UTF-16 units in one event

/**
 * Yield the text of a body as it arrives, without a BOM and without incomplete characters.
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader is cancelled at the end, in any case
 * @returns {AsyncGenerator<string>}
 */
export async function* textOf(reader) {
  const decoder = new TextDecoder();
  try {
    // Not `for await (const bytes of body)`: Safari cannot do that.
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      yield decoder.decode(read.value, { stream: true });
    }
    yield decoder.decode();
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Yield each event as soon as its blank line arrives. Throws what reading throws, and RangeError for a huge event.
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader
 * @returns {AsyncGenerator<SseEvent>}
 */
export async function* events(reader) {
  const parser = new EventParser();
  for await (const text of textOf(reader)) yield* parser.push(text);
}

/** Parses text, in pieces that are cut anywhere, into events. */
export class EventParser {
  #line = ""; // the beginning of an unfinished line
  #isAfterCr = false; // an LF now is the second half of a line end
  #name = "";
  #data = [];
  #size = 0;
  #isJson = false; // within JSON that has no field

  /** Parse the next piece. @param {string} text @returns {SseEvent[]} the events that it completes */
  push(text) {
    if (!text) return [];
    const events = [];
    const lines = (this.#isAfterCr && text[0] === "\n" ? text.slice(1) : text).split(/\r\n|\r|\n/);
    this.#isAfterCr = text.endsWith("\r");
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    for (const line of lines) this.#take(line, events);
    if (this.#size + this.#line.length > LIMIT) throw new RangeError("an event is too large");
    return events;
  }

  /** The event that the end of the body cut, as far as it arrived. The standard drops it. @returns {SseEvent} */
  get unfinished() {
    const isJson = this.#line && (this.#isJson || BARE_JSON.test(this.#line));
    const [field, value] = isJson ? ["data", this.#line] : fieldOf(this.#line);
    const data = field === "data" ? [...this.#data, value] : this.#data;
    return { name: (field === "event" ? value : this.#name) || "message", data: data.join("\n") };
  }

  #take(line, events) {
    if (line === "") this.#isJson = false;
    else if (!this.#isJson && BARE_JSON.test(line)) {
      // The standard drops it. Gemini breaks off an answer with an error outside of any event.
      if (this.#data.length) this.#take("", events);
      this.#isJson = true;
    }
    const [field, value] = this.#isJson ? ["data", line] : fieldOf(line);
    if (field === "event") this.#name = value;
    if (field === "data") {
      this.#data.push(value);
      this.#size += value.length;
    }
    if (line !== "" && field !== "error") return;
    // The standard drops an event without data. One with the name error is still an error.
    const hasEvent = this.#data.length > 0 || this.#name.trim().toLowerCase() === "error";
    if (hasEvent) events.push({ name: this.#name || "message", data: this.#data.join("\n") });
    // llama.cpp, from September 2024 to September 2025, sent `error: {...}` for `data: {"error": {...}}`.
    if (field === "error") events.push({ name: "error", data: value });
    [this.#name, this.#data, this.#size] = ["", [], 0];
  }
}

/** @param {string} line @returns {[string, string]} its field and value; one space after the colon is left out */
function fieldOf(line) {
  line = line.replace(ODD_DATA, "data:"); // the standard drops a field `data` that is indented or written in capitals
  const colon = line.indexOf(":");
  return colon < 0 ? [line, ""] : [line.slice(0, colon), line.slice(colon + (line[colon + 1] === " " ? 2 : 1))];
}
