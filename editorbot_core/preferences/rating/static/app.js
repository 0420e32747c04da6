// The rating page. All text from the server is shown through textContent; an answer is kept in this browser until the
// server has confirmed it, and sent again with the same id if it has not.

const HEARD_AFTER_S = 1.5;
const BEFORE_JOIN_S = 2;
const RETRY_S = [0.5, 1, 2, 4, 5];
const STORE_RATER = "editorbot.rater";
const STORE_PENDING = "editorbot.pending";
const MODIFIERS = ["ctrlKey", "metaKey", "altKey"];

const byId = (id) => document.getElementById(id);
const views = { busy: byId("view-busy"), pair: byId("view-pair"), none: byId("view-none") };
const verdictButtons = [...document.querySelectorAll("[data-verdict]")];

let current = null; // the pair on the page
let verdict = null; // "a" or "b" while the strength is being chosen
let sending = false;
let lastSide = "a";
let rater = recall(STORE_RATER) || "listener";
let visit = 0; // rises with every pair asked for, so that a late reply is dropped

// ---------------------------------------------------------------- small things

function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds + 1e-6));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function remember(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // Private windows may have no storage; the page works without it.
  }
}

function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
const say = (text) => { byId("status").textContent = text; };

function warn(text) {
  byId("banner").textContent = text;
  byId("banner").hidden = !text;
}

function show(name) {
  for (const [key, view] of Object.entries(views)) view.hidden = key !== name;
}

// ---------------------------------------------------------------- talking to the server

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(path, body, limitS) {
  const options = { credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(1000 * limitS) };
  if (body) {
    options.method = "POST";
    options.headers = { "content-type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const reply = await response.json();
  if (!response.ok) throw new Refused(response.status, String(reply.error));
  return reply;
}

// Repeats a request until the server has answered it; only a refusal (4xx) ends it.
async function callUntilAnswered(path, body, limitS) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const reply = await call(path, body, limitS);
      warn("");
      return reply;
    } catch (error) {
      if (error instanceof Refused && error.status < 500 && error.status !== 408) {
        if (error.status === 401) warn("This page was started again: open the new address that it printed. Your last answer is kept.");
        throw error;
      }
      const reason = error instanceof Refused ? error.message : "The page's server does not answer; is it still running?";
      warn(`${reason} Trying again; nothing is lost.`);
      await wait(RETRY_S[Math.min(attempt, RETRY_S.length - 1)]);
    }
  }
}

// ---------------------------------------------------------------- the two players

class Player {
  constructor(side) {
    this.side = side;
    this.root = document.querySelector(`[data-side="${side}"]`);
    this.root.append(byId("edit-template").content.cloneNode(true));
    const find = (selector) => this.root.querySelector(selector);
    [this.audio, this.seek, this.playButton, this.joinButton] = [find("audio"), find(".seek"), find(".play"), find(".next-join")];
    [this.now, this.total, this.heardMark, this.playhead] = [find(".now"), find(".total"), find(".heard"), find(".playhead")];
    this.letter = side.toUpperCase();
    find(".letter").textContent = this.letter;
    this.seek.setAttribute("aria-label", `Position in edit ${this.letter}`);
    this.joinButton.setAttribute("aria-label", `Edit ${this.letter}: go to just before the next join`);
    this.playButton.setAttribute("aria-keyshortcuts", this.letter);
    this.playButton.addEventListener("click", () => this.toggle());
    this.joinButton.addEventListener("click", () => this.nextJoin());
    this.seek.addEventListener("input", () => { this.audio.currentTime = Number(this.seek.value); this.draw(); });
    this.seek.addEventListener("pointerup", () => this.seek.blur());
    for (const name of ["play", "pause", "ended"]) this.audio.addEventListener(name, () => this.changed());
    this.audio.addEventListener("timeupdate", () => this.advance());
    this.audio.addEventListener("error", () => { if (current) warn(`Edit ${this.letter} cannot be played; skip this pair, or load the page again.`); });
    this.load(null);
  }

  load(edit) {
    this.edit = edit;
    this.heardS = 0;
    this.heard = false;
    this.lastS = 0;
    this.audio.pause();
    this.heardMark.hidden = true;
    if (!edit) {
      this.audio.removeAttribute("src");
      this.changed();
      return;
    }
    this.audio.src = `/audio/${edit.audio}`;
    this.seek.max = String(edit.duration_s);
    this.total.textContent = clock(edit.duration_s);
    this.joinButton.disabled = edit.joins_s.length === 0;
    const count = edit.joins_s.length;
    this.root.querySelector(".join-count").textContent = count === 0 ? "no joins" : count === 1 ? "1 join" : `${count} joins`;
    this.root.querySelector(".joins").replaceChildren(...edit.joins_s.map((join) => {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const x = String(240 * join / edit.duration_s);
      for (const [key, value] of [["x1", x], ["x2", x], ["y1", "0"], ["y2", "100"]]) line.setAttribute(key, value);
      return line;
    }));
    this.root.querySelector(".peaks:not(.played)").setAttribute("d", this.bars(edit.peaks.length));
    this.changed();
    this.draw();
  }

  bars(count) {
    return this.edit.peaks.slice(0, count).map((peak, i) => {
      const half = Math.max(1, 0.46 * peak);
      return `M${i + 0.15} ${(50 - half).toFixed(1)}h0.7v${(2 * half).toFixed(1)}h-0.7z`;
    }).join("");
  }

  draw() {
    if (!this.edit) return;
    const time = this.audio.currentTime;
    const x = Math.min(240, 240 * time / this.edit.duration_s);
    this.now.textContent = clock(time);
    this.seek.value = String(time);
    this.seek.setAttribute("aria-valuetext", `${clock(time)} of ${clock(this.edit.duration_s)}`);
    this.root.querySelector(".played").setAttribute("d", this.bars(Math.round(x)));
    for (const key of ["x1", "x2"]) this.playhead.setAttribute(key, String(x));
  }

  advance() {
    const step = this.audio.currentTime - this.lastS;
    if (step > 0 && step < 1) this.heardS += step;
    this.lastS = this.audio.currentTime;
    this.noteHeard();
    this.draw();
  }

  changed() {
    const playing = !this.audio.paused && !this.audio.ended;
    this.root.classList.toggle("playing", playing);
    this.root.querySelector(".play-label").textContent = `${playing ? "Pause" : "Play"} ${this.letter}`;
    if (this.audio.ended) this.noteHeard();
    this.draw();
  }

  noteHeard() {
    if (!this.edit || this.heard || this.heardS < Math.min(HEARD_AFTER_S, 0.5 * this.edit.duration_s)) return;
    this.heard = true;
    this.heardMark.hidden = false;
    updateChoices();
  }

  toggle() {
    if (!this.edit) return;
    lastSide = this.side;
    if (this.audio.paused || this.audio.ended) {
      players[this.side === "a" ? "b" : "a"].audio.pause();
      this.lastS = this.audio.ended ? 0 : this.audio.currentTime;
      // A rejected promise means that playing was interrupted or is not possible, which the error event reports.
      this.audio.play().catch(() => this.changed());
    } else {
      this.audio.pause();
    }
  }

  nextJoin() {
    if (!this.edit || this.edit.joins_s.length === 0) return;
    const after = this.audio.currentTime + BEFORE_JOIN_S + 0.1;
    const join = this.edit.joins_s.find((time) => time > after) ?? this.edit.joins_s[0];
    this.audio.currentTime = Math.max(0, join - BEFORE_JOIN_S);
    this.lastS = this.audio.currentTime;
    if (this.audio.paused) this.toggle();
    this.draw();
  }
}

const players = { a: new Player("a"), b: new Player("b") };

// ---------------------------------------------------------------- one pair after the other

function updateChoices() {
  const heardBoth = players.a.heard && players.b.heard;
  for (const button of verdictButtons) {
    button.disabled = !heardBoth || sending;
    if (button.dataset.verdict !== "same") button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict));
  }
  byId("strengths").hidden = verdict === null;
  byId("hint").hidden = verdict !== null;
  for (const button of document.querySelectorAll("[data-strength]")) button.disabled = sending;
  byId("skip").disabled = sending;
  const missing = ["a", "b"].filter((side) => !players[side].heard).map((side) => side.toUpperCase());
  if (!heardBoth) byId("hint").textContent = `Listen to ${missing.join(" and ")} first, then choose.`;
  else byId("hint").textContent = "Which one would you rather keep?";
}

function showProgress(progress) {
  byId("count-yours").textContent = String(progress.yours);
  byId("count-label").textContent = progress.yours === 1 ? "answer given" : "answers given";
  const others = progress.everybody - progress.yours;
  const left = progress.waiting === 1 ? "1 pair waiting" : `${progress.waiting} pairs waiting`;
  byId("count-rest").textContent = (others > 0 ? ` · ${others} by others` : "") + ` · ${left}`;
}

function showNotices(notices) {
  byId("notices").hidden = notices.length === 0;
  byId("notices").replaceChildren(...notices.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

const NONE = {
  empty: ["Nothing to compare yet", "Pairs of edits are proposed at the end of a run. Start one in a terminal, then look again:", "make run"],
  finished: ["All pairs are done – thank you", "The next run trains on your answers and proposes new pairs:", "make run"],
  unplayable: ["None of the pairs can be played", "The notes above say why. Put the songs back, or propose new pairs:", "make run"],
};

function showNone(state) {
  const [title, text, command] = NONE[state];
  byId("none-title").textContent = title;
  byId("none-text").textContent = text;
  byId("none-command").textContent = command;
  show("none");
  byId("none-title").focus();
}

async function nextPair() {
  const mine = (visit += 1);
  current = null;
  verdict = null;
  for (const player of Object.values(players)) player.load(null);
  show("busy");
  let reply;
  try {
    reply = await callUntilAnswered(`/api/pair?rater=${encodeURIComponent(rater)}`, null, 300);
  } catch (error) {
    if (mine === visit && error.status !== 401) warn(error.message);
    return;
  }
  if (mine !== visit) return;
  showProgress(reply.progress);
  showNotices(reply.notices);
  if (reply.state !== "pair") {
    showNone(reply.state);
    return;
  }
  current = reply;
  lastSide = "a";
  byId("song").textContent = reply.song;
  const verb = reply.target_s <= reply.source_s ? "cut" : "extended";
  byId("target").textContent = `${verb} from ${clock(reply.source_s)} to about ${clock(reply.target_s)}`;
  for (const side of ["a", "b"]) players[side].load(reply[side]);
  updateChoices();
  show("pair");
  byId("song").focus({ preventScroll: true });
}

// Sends the answer that this browser still keeps, if any; true if the server has it now or will never take it.
async function sendPending() {
  const kept = recall(STORE_PENDING);
  if (!kept) return true;
  let body;
  try {
    body = JSON.parse(kept);
  } catch {
    remember(STORE_PENDING, null);
    return true;
  }
  return sendAnswer(body);
}

async function sendAnswer(body) {
  try {
    const reply = await callUntilAnswered("/api/answers", body, 20);
    remember(STORE_PENDING, null);
    showProgress(reply.progress);
    say("Saved.");
    return true;
  } catch (error) {
    if (error.status === 401) return false;
    remember(STORE_PENDING, null);
    say(`This answer was not taken: ${error.message}`);
    return true;
  }
}

async function answer(strength) {
  if (!current || sending) return;
  const body = {
    answer_id: randomId(), pair: current.pair, audio_a: current.a.audio, audio_b: current.b.audio,
    verdict: strength === 0 ? "same" : verdict, strength, rater,
  };
  sending = true;
  updateChoices();
  say("Saving…");
  for (const player of Object.values(players)) player.audio.pause();
  remember(STORE_PENDING, JSON.stringify(body));
  const done = await sendAnswer(body);
  sending = false;
  if (done) await nextPair();
  else updateChoices();
}

function choose(value) {
  if (!current || sending || !players.a.heard || !players.b.heard) return;
  if (value === "same") {
    verdict = null;
    answer(0);
    return;
  }
  verdict = value;
  updateChoices();
  byId("strengths").scrollIntoView({ block: "nearest" });
}

async function skip() {
  if (!current || sending) return;
  sending = true;
  updateChoices();
  try {
    await callUntilAnswered("/api/skips", { pair: current.pair, rater }, 20);
    say("Skipped.");
  } catch (error) {
    say(error.message);
  }
  sending = false;
  await nextPair();
}

function takeBack() {
  if (sending) return;
  verdict = null;
  updateChoices();
}

// ---------------------------------------------------------------- hands on it

for (const button of verdictButtons) button.addEventListener("click", () => choose(button.dataset.verdict));
for (const button of document.querySelectorAll("[data-strength]")) {
  button.addEventListener("click", () => { if (verdict) answer(Number(button.dataset.strength)); });
}
byId("skip").addEventListener("click", skip);
byId("again").addEventListener("click", nextPair);

byId("rater").value = rater;
byId("rater").addEventListener("change", () => {
  const name = Array.from(byId("rater").value.replace(/\p{C}/gu, "")).slice(0, 40).join("").trim();
  rater = name || "listener";
  remember(STORE_RATER, rater);
  byId("rater").value = rater;
  if (!sending) nextPair();
});

const shortcuts = {
  a: () => players.a.toggle(), b: () => players.b.toggle(), " ": () => players[lastSide].toggle(), j: () => players[lastSide].nextJoin(),
  arrowleft: () => choose("a"), arrowright: () => choose("b"), n: () => choose("same"), s: skip, escape: takeBack,
  1: () => verdict && answer(1), 2: () => verdict && answer(2), 3: () => verdict && answer(3),
};

document.addEventListener("keydown", (event) => {
  if (!current || event.repeat || MODIFIERS.some((key) => event[key])) return;
  const key = event.key.toLowerCase();
  const inText = event.target === byId("rater");
  const nativeKey = event.target.matches("input[type=range]") ? key.startsWith("arrow") : event.target.matches("button, summary") && key === " ";
  const action = Object.hasOwn(shortcuts, key) ? shortcuts[key] : null;
  if (!action || inText || nativeKey) return;
  event.preventDefault();
  action();
});

// The address keeps the key out of the history; the browser has it in a cookie now.
if (location.search) history.replaceState(null, "", "/");
if (await sendPending()) await nextPair();
