// What scripts add to pages that can be read without them.
import { copy } from "./copy.js";
import { keys } from "./keys.js";
import { live } from "./live.js";
import { log } from "./log.js";
import { times } from "./times.js";

times();
copy();
keys();
log();
live();
for (const button of document.querySelectorAll("[data-noscript]")) button.hidden = true;
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submits]")) event.target.form.submit();
});
const door = document.getElementById("door");
if (door && location.hash.startsWith("#token=")) { // the link that a first start printed; a server never sees this part
  door.elements.token.value = decodeURIComponent(location.hash.slice(7));
  history.replaceState(null, "", location.pathname + location.search);
  door.requestSubmit();
}
