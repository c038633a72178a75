// j and k go from row to row, Enter opens (the row's link has the focus), / goes to the search field, ← and → to what stands beside
// an attempt in its list.
function move(step) {
  const links = [...document.querySelectorAll("[data-row] a[href], [data-row] summary")];
  const rows = [...new Map(links.map((link) => [link.closest("[data-row]"), link]).reverse()).values()].reverse();
  if (!rows.length) return;
  const here = document.activeElement?.closest("[data-row]");
  const at = rows.findIndex((link) => link.closest("[data-row]") === here);
  const next = at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + step, 0), rows.length - 1);
  rows[next].focus();
  rows[next].closest("[data-row]").scrollIntoView({ block: "nearest" });
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const open = document.activeElement?.closest("details.act[open]");
  if (event.key === "Escape" && open) {
    open.open = false;
    open.querySelector("summary").focus();
    return;
  }
  if (event.target.matches("input, textarea, select")) return;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    // What has the focus and is wider than its place is moved by these keys.
    const wide = event.target.closest("[tabindex='0']");
    if (!event.shiftKey && !(wide && wide.scrollWidth > wide.clientWidth)) document.querySelector(`a[data-beside="${event.key}"]`)?.click();
  } else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "/") {
    const field = document.querySelector("[data-find]");
    if (!field) return;
    event.preventDefault();
    field.focus();
    field.select();
  }
}

export function keys() {
  document.addEventListener("keydown", pressed);
  const hint = document.getElementById("keys");
  if (hint && document.querySelector("[data-row]")) hint.hidden = false;
  const beside = document.getElementById("beside-keys");
  if (beside && document.querySelector("a[data-beside]")) beside.hidden = false;
  // One open form at a time; a click elsewhere closes it.
  document.addEventListener("click", (event) => {
    for (const act of document.querySelectorAll("details.act[open]")) {
      if (!act.contains(event.target)) act.open = false;
    }
  });
}
