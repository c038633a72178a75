// Buttons that copy the text below them; shown where the browser lets a page do that.
export function copy() {
  if (!navigator.clipboard) return; // not over plain HTTP from another host
  document.documentElement.classList.add("copies");
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.nextElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
