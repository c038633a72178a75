// Keeps a page up to date: the server says that something has changed, or is asked now and then; the page is fetched
// anew (its ETag spares both sides where nothing is new) and what differs is put in place. When the server does not
// answer, a banner says so, and since when what is shown is old.
const SOON_MS = 400;
const EVERY_MS = 5000;
const EVENTS = ["message", "missed"];

const main = document.getElementById("main");
const note = document.getElementById("live");
const banner = document.getElementById("gone");
let tag = null;
let timer = null;
let asking = false;
let failures = 0;
let answered = new Date();

function said(text) {
  note.hidden = !text;
  if (note.textContent !== text) note.textContent = text;
}

function gone(text) {
  const line = `${text} What you see is from ${answered.toLocaleTimeString()}.`;
  if (banner.textContent !== line) banner.textContent = line;
  banner.hidden = false;
  document.body.classList.add("is-gone");
  said("");
}

function back() {
  answered = new Date();
  banner.hidden = true;
  document.body.classList.remove("is-gone");
  said("live");
}

const kept = (node) => node.nodeType === Node.ELEMENT_NODE && node.matches("[data-log], details[open].act, form:focus-within, form[data-dirty]");

function put(html) {
  const next = new DOMParser().parseFromString(html, "text/html");
  const fresh = next.getElementById("main");
  if (!fresh) return;
  document.title = next.title;
  Idiomorph.morph(main, fresh, {
    morphStyle: "outerHTML",
    ignoreActiveValue: true,
    callbacks: {
      beforeNodeMorphed: (node, to) => !kept(node) && !(node.localName === "time" && node.dateTime === to.dateTime),
      beforeNodeRemoved: (node) => !kept(node),
      beforeAttributeUpdated: (name, node) => !(name === "open" && node.localName === "details"),
    },
  });
  document.dispatchEvent(new Event("page:changed"));
}

async function ask() {
  const address = new URL(location.href);
  for (const name of ["did", "of", "n", "was"]) address.searchParams.delete(name);
  try {
    const answer = await fetch(address, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store", redirect: "manual", signal: AbortSignal.timeout(15000) });
    return { answer, html: answer.ok ? await answer.text() : "" };
  } catch {
    return null; // nobody answers
  }
}

async function look() {
  if (asking || document.hidden) return;
  asking = true;
  const asked = await ask();
  const answer = asked?.answer;
  failures = answer ? 0 : failures + 1;
  if (!answer) gone("The server does not answer; trying again.");
  else if (answer.type === "opaqueredirect" || answer.status === 401) gone("You are logged out: load the page again.");
  else if (answer.ok) {
    tag = answer.headers.get("ETag");
    put(asked.html);
    back();
  } else if (answer.status === 304) back();
  else gone(`The server answers ${answer.status}.`);
  asking = false;
  again(Math.min(EVERY_MS * 2 ** Math.min(failures, 3), 30000));
}

function again(after) {
  clearTimeout(timer);
  timer = setTimeout(look, after);
}

function listen(address) {
  const source = new EventSource(address);
  for (const name of EVENTS) source.addEventListener(name, () => again(SOON_MS));
  source.addEventListener("error", () => again(SOON_MS));
  source.addEventListener("open", () => failures && again(SOON_MS)); // it answers again
  addEventListener("pagehide", () => source.close());
}

export function live() {
  if (!main?.dataset.events) return;
  document.addEventListener("input", (event) => event.target.form?.setAttribute("data-dirty", ""));
  document.addEventListener("visibilitychange", () => document.hidden || look());
  said("live");
  listen(main.dataset.events);
  again(EVERY_MS);
}
