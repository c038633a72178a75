// Times in the reader's zone, or as how long ago; the exact one stays in the title.
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function distance(seconds) {
  const far = Math.abs(seconds);
  if (far < 60) return `${Math.floor(far)} s`;
  if (far < 3600) return `${Math.floor(far / 60)} min`;
  if (far < 86400) return `${Math.floor(far / 3600)} h ${Math.floor((far % 3600) / 60)} min`;
  return `${Math.floor(far / 86400)} d`;
}

export function shown(element, now = new Date()) {
  const at = new Date(element.dateTime);
  if (Number.isNaN(at.getTime())) return;
  const seconds = (now - at) / 1000;
  let text = at.toDateString() === now.toDateString() ? hour.format(at) : day.format(at);
  if (element.dataset.show === "ago" && Math.abs(seconds) < 30 * 86400) {
    text = seconds < 0 ? `in ${distance(seconds)}` : `${distance(seconds)} ago`;
  }
  if (element.textContent !== text) element.textContent = text;
  element.title = `${exact.format(at)} (${element.dateTime})`;
}

function all() {
  const now = new Date();
  for (const element of document.querySelectorAll("time[datetime]")) shown(element, now);
}

export function times() {
  all();
  setInterval(all, 1000);
  document.addEventListener("page:changed", all);
}
