// What the pages do beyond HTML and htmx: copy, dismiss, keys. Everything works without it, only with more clicks.
"use strict";
const on = (...what) => document.addEventListener(...what);
(() => {
  const places = { h: "/", a: "/audiences/", o: "/overlap/", p: "/people/", i: "/imports/", d: "/destinations/", r: "/runs/", l: "/alerts/", s: "/settings/" };
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
    }, toast.querySelector("form") ? 20000 : 7000);
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

  on("click", (event) => {
    const button = event.target.closest("[data-copy], [data-dismiss], [data-open]");
    if (!button) {
      for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
      return;
    }
    if (button.dataset.copy !== undefined) copy(button);
    else if (button.dataset.open) document.getElementById(button.dataset.open)?.showModal();
    else button.closest(".toast")?.remove();
  });

  // The box in the top bar: what it leads to opens beneath it. Arrows choose, Enter goes; without a choice Enter opens the page of answers.
  const box = document.getElementById("find");
  const found = document.getElementById("found");
  const choices = () => [...found.querySelectorAll("a[role=option]")];
  const choose = (item) => {
    for (const one of choices()) {
      one.classList.toggle("current", one === item);
      one.setAttribute("aria-selected", one === item);
    }
    if (item) item.scrollIntoView({ block: "nearest" });
    box.setAttribute("aria-activedescendant", item ? item.id : "");
  };
  const unfold = (open) => {
    found.hidden = !open;
    box.setAttribute("aria-expanded", open);
    if (!open) choose(null);
  };
  if (box) {
    if (/Mac|iPhone|iPad/.test(navigator.platform)) box.form.querySelector("kbd").textContent = "⌘K";
    box.addEventListener("focus", () => unfold(true));
    box.addEventListener("input", () => {
      unfold(true);
      choose(null); // what is listed answers older words
    });
    box.form.addEventListener("focusout", (event) => {
      if (!box.form.contains(event.relatedTarget)) unfold(false);
    });
    found.addEventListener("htmx:afterSettle", () => {
      if (box.value.trim()) choose(choices()[0] || null);
    });
    box.addEventListener("keydown", (event) => {
      const all = choices();
      const at = all.findIndex((one) => one.classList.contains("current"));
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        unfold(true);
        if (all.length) choose(all[(at + (event.key === "ArrowDown" ? 1 : at < 0 ? 0 : -1) + all.length) % all.length]);
      } else if (event.key === "Enter" && at >= 0 && !found.hidden) {
        event.preventDefault();
        location.assign(all[at].href);
      }
    });
  }

  const rows = () => [...document.querySelectorAll("table.rows tbody tr, .needs > li")].filter((row) => row.querySelector("a[href]"));
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
  on("keydown", (event) => {
    if (event.key === "Escape") {
      const menu = document.querySelector("details.menu[open]");
      if (menu) {
        menu.open = false;
        menu.querySelector("summary").focus();
      } else if (event.target.id === "search" || event.target === box) {
        event.preventDefault(); // the browser would empty the field, and the list would change under the next key
        event.target.blur();
      }
      return;
    }
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k" && box && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      box.focus();
      box.select();
      return;
    }
    if (!("keys" in document.body.dataset) || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    if (going) {
      going = false;
      // Only where the rail leads: what a role may not see is not gone to either.
      if (document.querySelector(`.rail a[href="${places[event.key]}"]`)) location.assign(places[event.key]);
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      (document.getElementById("search") || box)?.focus();
    } else if (event.key === "g") {
      going = true;
      setTimeout(() => (going = false), 1200);
    } else if (event.key === "?") document.getElementById("keys")?.showModal();
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "c") document.querySelector("tr.current [data-copy]")?.click();
    else if (event.key === "n") document.querySelector('main a[href="/audiences/new/"]')?.click();
    else if (event.key === "e") document.querySelector('main a[href$="/edit/"], main a[href$="/details/"]')?.click();
  });

  // A failed request must not look like nothing happened.
  on("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    say(status === 403 ? "This is not for your role." : status === 404 ? "It is no longer there. Load the page again." : status === 400 ? "Not taken: too large. It still stands here." : "Something went wrong. Load the page again.");
  });
  on("htmx:sendError", () => say("Rollcall cannot be reached. Trying goes on."));
  on("htmx:afterSettle", () => document.querySelectorAll(".toast").forEach(leaveSoon));
  document.querySelectorAll(".toast").forEach(leaveSoon);
})();

// The overlap table is one stop of Tab, with arrow keys from cell to cell; a dialog that htmx has filled opens, and its backdrop closes it.
(() => {
  const table = document.querySelector("table.heat tbody");
  if (table) {
    const cells = [...table.querySelectorAll("td a")];
    cells.forEach((cell, at) => (cell.tabIndex = at ? -1 : 0));
    table.addEventListener("focusin", (event) => {
      if (!event.target.closest("td")) return;
      table.querySelector('td a[tabindex="0"]')?.setAttribute("tabindex", "-1");
      event.target.tabIndex = 0;
    });
    table.addEventListener("keydown", (event) => {
      const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      const cell = event.target.closest("td");
      if (!way || !cell || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      let row = cell.parentElement.sectionRowIndex;
      let column = cell.cellIndex;
      do {
        row += way[0];
        column += way[1];
      } while (table.rows[row]?.cells[column]?.matches(".self"));
      table.rows[row]?.cells[column]?.querySelector("a")?.focus();
    });
  }
  on("htmx:afterSwap", (event) => {
    const dialog = event.target.closest("dialog.side");
    if (dialog && !dialog.open) dialog.showModal();
  });
  on("click", (event) => {
    if (event.target.matches("dialog.side")) event.target.close();
  });

  // A clock goes on counting between two answers of the server (the demo's story of a purchase).
  const clocks = new WeakMap();
  const tick = () => {
    for (const clock of document.querySelectorAll("[data-count-from]")) {
      if (!clocks.has(clock)) clocks.set(clock, performance.now() - 1000 * parseFloat(clock.dataset.countFrom));
      clock.textContent = ((performance.now() - clocks.get(clock)) / 1000).toFixed(1);
    }
  };
  if (document.querySelector("[data-count-from]")) setInterval(tick, 100);
})();

// A row of the catalogue opens its audience, wherever it is pressed, unless something in it was meant or its words were selected.
on("click", (event) => {
  const row = event.target.closest("table.catalog tbody tr");
  if (!row || event.target.closest("a, button, input, summary") || String(getSelection())) return;
  const { href } = row.querySelector("a[href]");
  if (event.ctrlKey || event.metaKey) open(href, "_blank", "noopener");
  else location.assign(href);
});

// The rule builder swaps its form while somebody goes on typing. What was typed since the form was sent is put back and saved in its
// turn, the focus stays where it was, and a button that was pressed meanwhile still says which one it was.
(() => {
  let sent = {};
  let typed = [];
  let here = null; // a selector of what has the focus
  const named = ({ id, name, value }) => (id ? `#${CSS.escape(id)}` : name ? `[name="${CSS.escape(name)}"][value="${CSS.escape(value)}"]` : null);
  on("htmx:configRequest", (event) => {
    if (event.detail.elt.id !== "editor") return;
    const button = event.detail.triggeringEvent?.submitter;
    event.detail.formData.delete("do"); // htmx takes a button that only has the focus for one that was pressed
    if (button?.name) event.detail.formData.set(button.name, button.value);
  });
  on("htmx:beforeRequest", (event) => {
    if (event.detail.elt.id === "editor") sent = Object.fromEntries(new FormData(event.detail.elt));
  });
  on("htmx:beforeSwap", (event) => {
    if (event.target.id !== "rules") return;
    const fields = document.getElementById("editor").querySelectorAll("input:not([type=hidden], [type=checkbox]), select, textarea");
    typed = [...fields].filter((field) => field.id && field.name in sent && field.value !== sent[field.name]).map((field) => [field.id, field.value]);
    here = document.activeElement?.closest("#editor") ? named(document.activeElement) : null;
  });
  on("htmx:afterSwap", (event) => {
    if (event.target.id !== "rules") return;
    const put = typed.map(([id, value]) => [document.getElementById(id), value]).filter(([field]) => field && field.value === sent[field.name]); // else rows have moved
    for (const [field, value] of put) field.value = value;
    const again = here && !event.target.querySelector("[autofocus]") ? document.getElementById("editor").querySelector(here) : null;
    again?.focus();
    if (!put.length) return;
    const tell = () => event.target.dispatchEvent(new Event("change", { bubbles: true }));
    if (put.length === 1 && put[0][0] === again) again.addEventListener("blur", tell, { once: true });
    else tell();
  });
  // What is said aloud is said once: words that have not changed stay where they are.
  on("htmx:oobBeforeSwap", ({ target, detail }) => {
    const same = (a, b) => a.textContent.trim().replace(/\s+/g, " ") === b.textContent.trim().replace(/\s+/g, " ");
    if (target.ariaLive && same(target, detail.fragment)) detail.shouldSwap = false;
  });
  on("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (!(event.ctrlKey || event.metaKey) || event.altKey || (key !== "z" && key !== "y") || document.querySelector("dialog[open]")) return;
    if (event.target.closest("textarea, input:not([type=checkbox], [type=radio]), [contenteditable]")) return; // which have an undo of their own
    const button = document.querySelector(`#editor [name=do][value=${key === "y" || event.shiftKey ? "redo" : "undo"}]`);
    if (!button) return;
    event.preventDefault();
    button.click();
  });
})();

// A field of the rule builder lists what has been seen, and how often; a browser's own list hides all but what is typed already. In a
// field of many values the line with the cursor is chosen for.
(() => {
  const MOST = 60;
  let field = null;
  let list = null;
  let at = -1;
  let whole = false; // all names are listed, whatever is typed
  let again = null; // the mark of a list that was open when the form was swapped
  const line = () => {
    if (field.tagName !== "TEXTAREA") return [0, field.value.length];
    const start = field.value.lastIndexOf("\n", field.selectionStart - 1) + 1;
    return [start, (field.value + "\n").indexOf("\n", start)];
  };
  const close = () => {
    list?.remove();
    list = null;
    field?.setAttribute("aria-expanded", false);
    field?.removeAttribute("aria-activedescendant");
  };
  const mark = (to) => {
    at = to;
    [...list.children].forEach((item, n) => item.setAttribute("aria-selected", n === at));
    list.children[at]?.scrollIntoView({ block: "nearest" });
    field.setAttribute("aria-activedescendant", at < 0 ? "" : `offer-${at}`);
  };
  const open = (all) => {
    close();
    whole = all;
    const names = [...(document.getElementById(field.dataset.list)?.options || [])];
    const typed = field.value.slice(...line()).trim().toLowerCase();
    const like = all ? names : names.filter(({ value }) => value.toLowerCase().includes(typed));
    if (!like.length || (!all && like.length === 1 && like[0].value.toLowerCase() === typed)) return;
    list = document.createElement("ul");
    list.className = "seen-names";
    list.id = "offers";
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", field.getAttribute("aria-label"));
    like.slice(0, MOST).forEach(({ value, text }, n) => {
      const item = document.createElement("li");
      item.id = `offer-${n}`;
      item.setAttribute("role", "option");
      item.append(value, Object.assign(document.createElement("span"), { className: "sub", textContent: text }));
      list.append(item);
    });
    list.style.left = `${field.offsetLeft}px`;
    list.style.top = `${field.offsetTop + field.offsetHeight + 2}px`;
    field.after(list);
    field.setAttribute("aria-expanded", true);
    list.scrollIntoView({ block: "nearest" });
    mark(-1);
  };
  const take = (item) => {
    const [start, end] = line();
    field.setRangeText(item.firstChild.data, start, end, "end");
    close();
    field.dispatchEvent(new Event("change", { bubbles: true }));
  };
  on("focusin", ({ target }) => {
    if (list && target !== field) close();
    if (!target.matches("#editor [list], #editor [data-list]")) return void (field = null);
    field = target;
    field.dataset.list ||= field.getAttribute("list");
    field.removeAttribute("list");
    if (!field.value) open(true);
  });
  on("htmx:beforeSwap", ({ target }) => {
    if (target.id === "rules") again = list && document.activeElement === field ? at : null;
  });
  on("htmx:afterSwap", ({ target }) => {
    if (target.id !== "rules" || again === null || document.activeElement !== field) return;
    open(whole);
    if (list) mark(Math.min(again, list.children.length - 1));
  });
  on("input", ({ target }) => target === field && open(!field.value));
  on("mousedown", (event) => {
    const item = event.target.closest("#offers li");
    if (item) {
      event.preventDefault(); // or the field would be left
      take(item);
    } else if (list && event.target !== field && !list.contains(event.target)) close();
  });
  on("click", ({ target }) => target === field && !list && open(true));
  on("keydown", (event) => {
    if (!field || event.target !== field) return;
    const down = event.key === "ArrowDown";
    if ((down || event.key === "ArrowUp") && (list || field.tagName !== "TEXTAREA")) {
      event.preventDefault();
      if (!list) open(true);
      if (list) mark((at + (down ? 1 : at < 0 ? 0 : -1) + list.children.length) % list.children.length);
    } else if (event.key === "Enter" && list && at >= 0) {
      event.preventDefault();
      take(list.children[at]);
    } else if (event.key === "Escape" && list) close();
  });
})();

// A rule or group that is dragged comes before what it is let go over, or after it in its lower half. Buttons do the same.
(() => {
  let moved = null;
  let over = null;
  const aim = (item, after) => {
    over?.classList.remove("drop-before", "drop-after");
    over = item;
    over?.classList.add(after ? "drop-after" : "drop-before");
  };
  on("dragstart", ({ target, dataTransfer }) => {
    moved = target.closest?.(".rule-grip")?.closest(".rule-row, .rule-group");
    if (moved) dataTransfer.setDragImage(moved, 0, 0);
  });
  on("dragover", (event) => {
    const item = moved && event.target.closest(".rule-row, .rule-group:not(.outermost)");
    const { top, height } = item?.getBoundingClientRect() || {};
    aim(item && !moved.contains(item) ? item : null, event.clientY > top + height / 2);
    if (over) event.preventDefault();
  });
  on("drop", (event) => {
    if (!over) return;
    event.preventDefault();
    const button = document.querySelector("#rules [name=do]");
    button.value = `move:${moved.id}:${over.id}${over.matches(".drop-after") ? ":after" : ""}`;
    button.click(); // the one that is not seen, which the next form has anew
  });
  on("dragend", () => aim((moved = null)));
})();
