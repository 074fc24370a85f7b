// Runs once for each part of the page that has buttons of its own; Gradio gives `element` and `trigger`.
element.setAttribute("aria-live", element.closest("#m4-results") ? "polite" : "off");
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button || button.disabled) return;
  const { action, id, place } = button.dataset;
  trigger("click", { action, id, place: place === undefined ? null : Number(place) });
});
