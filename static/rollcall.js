// What the pages do beyond HTML and htmx: copy, dismiss, keys. Everything works without it, only with more clicks.
"use strict";
(() => {
  const places = { a: "/audiences/", p: "/people/", i: "/imports/", d: "/destinations/", r: "/runs/", s: "/settings/" };
  const typing = (target) => target.closest("input, textarea, select, [contenteditable]") !== null;

  const say = (words) => {
    const region = document.getElementById("toasts");
    if (!region) return;
    const toast = document.createElement("div");
    toast.className = "toast";
    const text = document.createElement("p");
    text.textContent = words;
    toast.append(text);
    region.append(toast);
    leaveSoon(toast);
  };

  // Success leaves by itself; an error stays until it is dismissed. One that is pointed at or focused stays too.
  const leaveSoon = (toast) => {
    if (toast.classList.contains("error") || toast.dataset.timed) return;
    toast.dataset.timed = "1";
    setTimeout(function leave() {
      if (toast.matches(":hover, :focus-within")) setTimeout(leave, 2000);
      else toast.remove();
    }, 7000);
  };

  const copy = async (button) => {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea"); // no clipboard API on plain http
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1500);
    say(`Copied ${text.length > 60 ? "to the clipboard" : text}`);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy], [data-dismiss], [data-open]");
    if (!button) {
      for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
      return;
    }
    if (button.dataset.copy !== undefined) copy(button);
    else if (button.dataset.open) document.getElementById(button.dataset.open)?.showModal();
    else button.closest(".toast")?.remove();
  });

  const rows = () => [...document.querySelectorAll("table.rows tbody tr")].filter((row) => row.querySelector("a[href]"));
  const step = (by) => {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((row) => row.classList.contains("current"));
    const next = all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + by))];
    all.forEach((row) => row.classList.toggle("current", row === next));
    next.querySelector("a[href]").focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  };

  let going = false;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      const menu = document.querySelector("details.menu[open]");
      if (menu) {
        menu.open = false;
        menu.querySelector("summary").focus();
      } else if (event.target.id === "search") {
        event.preventDefault(); // the browser would empty the field, and the list would change under the next key
        event.target.blur();
      }
      return;
    }
    if (!("keys" in document.body.dataset) || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    if (going) {
      going = false;
      if (places[event.key]) location.assign(places[event.key]);
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      document.getElementById("search")?.focus();
    } else if (event.key === "g") {
      going = true;
      setTimeout(() => (going = false), 1200);
    } else if (event.key === "?") document.getElementById("keys")?.showModal();
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "c") document.querySelector("tr.current [data-copy]")?.click();
  });

  // A failed request must not look like nothing happened.
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    say(status === 403 ? "This is not for your role." : status === 404 ? "It is no longer there. Load the page again." : "Something went wrong. Load the page again.");
  });
  document.addEventListener("htmx:sendError", () => say("Rollcall cannot be reached. Trying goes on."));
  document.addEventListener("htmx:afterSettle", () => document.querySelectorAll(".toast").forEach(leaveSoon));
  document.querySelectorAll(".toast").forEach(leaveSoon);
})();
