/** The text of an answer on the page, shown as it grows. */

const HIDDEN_MS = 200; // a hidden tab draws no frames
const RESTS = 4; // times as long as the last redraw took
const BLOCK = 4096; // UTF-16 units; a redraw lays out the last block only

/**
 * The text of an answer as it grows, in blocks: a new one after some KB, and for code and tables, which are monospaced.
 *
 * It is redrawn once per frame, however many deltas arrive: a redraw costs more than all of them. A long answer or a
 * slow machine redraws less often, so that the page stays responsive.
 */
export class AnswerText {
  characters = 0; // code points, not UTF-16 units
  #element;
  #onShown;
  #waiting = "";
  #cancel = null; // of the next redraw
  #rests = false;
  #block = { kind: "", node: null };
  #line = ""; // so far
  #lineStart = 0; // where it starts in its node
  #fence = ""; // the one that opened the code

  /** @param {Element} element @param {() => void} onShown is called after each redraw */
  constructor(element, onShown) {
    this.#element = element;
    this.#onShown = onShown;
  }

  add(text) {
    this.#waiting += text;
    this.#schedule();
  }

  /** Show at once what has arrived, at the end or if the frames stop. */
  flush() {
    this.#cancel?.();
    this.#cancel = null;
    for (const _ of this.#waiting) this.characters += 1;
    for (const [line] of this.#waiting.matchAll(/[^\n]*\n|[^\n]+$/g)) this.#append(line);
    this.#waiting = "";
    this.#onShown();
  }

  /** Wait for a timer if the frames have stopped, else for a frame. */
  reschedule() {
    if (!this.#cancel) return;
    this.#cancel();
    this.#cancel = null;
    this.#schedule();
  }

  #schedule() {
    if (this.#cancel || this.#rests || !this.#waiting) return;
    if (document.hidden) {
      const timer = setTimeout(() => this.flush(), HIDDEN_MS);
      this.#cancel = () => clearTimeout(timer);
    } else {
      const frame = requestAnimationFrame(() => this.#draw());
      this.#cancel = () => cancelAnimationFrame(frame);
    }
  }

  #draw() {
    const begunMs = performance.now();
    this.flush();
    this.#rests = true;
    const { port1, port2 } = new MessageChannel();
    // This runs after the layout and the paint of this frame.
    port1.onmessage = () => {
      port1.close();
      setTimeout(() => {
        this.#rests = false;
        this.#schedule();
      }, RESTS * (performance.now() - begunMs));
    };
    port2.postMessage(null);
  }

  /** Append a line or a part of one. */
  #append(part) {
    if (!this.#line) this.#beginLine(kindOf(part, this.#fence));
    this.#line += part;
    const kind = kindOf(this.#line, this.#fence);
    if (kind !== this.#block.kind) this.#moveLine(kind);
    this.#block.node.appendData(part);
    if (!part.endsWith("\n")) return;
    if (kind === "fence") this.#fence = this.#fence ? "" : this.#line.trim().match(/^[`~]+/)[0];
    this.#line = "";
  }

  #beginLine(kind) {
    const { node } = this.#block;
    if (kind !== this.#block.kind || node.length > BLOCK) this.#beginBlock(kind);
    this.#lineStart = this.#block.node.length;
  }

  /** Change the kind of the current line. */
  #moveLine(kind) {
    const { node } = this.#block;
    const begun = node.data.slice(this.#lineStart);
    if (this.#lineStart) node.deleteData(this.#lineStart, begun.length);
    else node.parentNode.remove();
    this.#beginBlock(kind);
    this.#block.node.appendData(begun);
    this.#lineStart = 0;
  }

  #beginBlock(kind) {
    const node = document.createTextNode("");
    const span = document.createElement("span");
    span.className = kind;
    if (kind === "table") span.tabIndex = 0; // a wide one scrolls, by the keyboard too
    span.append(node);
    this.#element.append(span);
    this.#block = { kind, node };
  }
}

/** Return the kind of a line by its beginning: prose, table, fence or code; `fence` is the open one, if any. */
function kindOf(line, fence) {
  const text = line.slice(0, 200).trim();
  if (fence) return text.startsWith(fence) && !text.replaceAll(fence[0], "") ? "fence" : "code";
  if (/^(`{3,}[^`]*|~{3,}.*)$/.test(text)) return "fence";
  return text[0] === "|" ? "table" : "prose";
}
