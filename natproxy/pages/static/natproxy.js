// The status page keeps itself up to date; copy buttons copy. Without this script both pages are whole all the same.
(function () {
  "use strict";

  // --- copying

  function select(element) {
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  }

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    const told = document.getElementById("copied");
    let text;
    try {
      await navigator.clipboard.writeText(source.textContent);
      text = "Copied";
    } catch {
      // Over plain HTTP browsers give no clipboard, but on localhost: the next key does it.
      select(source);
      text = "Selected: press Ctrl+C, or Command+C";
    }
    if (told) {
      told.textContent = "";
      window.setTimeout(() => { told.textContent = text + ": " + button.dataset.title; }, 50);
    }
    const label = button.firstChild;
    label.data = text === "Copied" ? "Copied" : "Selected";
    window.clearTimeout(button.back);
    button.back = window.setTimeout(() => { label.data = "Copy"; }, 2500);
  }

  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }

  // --- taking over what is new: elements that stay are kept, and with them focus, scrolling, selection and <details>

  function keyOf(node) {
    return node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || null : null;
  }

  function isAlike(one, other) {
    return one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);
  }

  function takeAttributes(from, to) {
    for (const { name, value } of [...to.attributes]) {
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
    for (const { name } of [...from.attributes]) {
      const isTheReaders = name === "open" && from.nodeName === "DETAILS";
      if (!to.hasAttribute(name) && !isTheReaders) from.removeAttribute(name);
    }
  }

  function takeChildren(from, to) {
    const keyed = new Map();
    for (const child of from.childNodes) {
      const key = keyOf(child);
      if (key !== null) keyed.set(key, child);
    }
    const wanted = new Set();
    for (const child of to.childNodes) {
      const key = keyOf(child);
      if (key !== null) wanted.add(key);
    }
    let place = from.firstChild;
    for (const next of [...to.childNodes]) {
      while (place && keyOf(place) !== null && !wanted.has(keyOf(place))) place = removed(place);
      const key = keyOf(next);
      const known = key === null ? place : keyed.get(key);
      if (known && isAlike(known, next)) {
        if (known === place) place = place.nextSibling;
        else from.insertBefore(known, place);
        take(known, next);
      } else {
        from.insertBefore(document.importNode(next, true), place);
      }
    }
    while (place) place = removed(place);
  }

  function removed(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
  }

  function take(from, to) {
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.data !== to.data) from.data = to.data;
    } else if (!from.isEqualNode(to)) {
      takeAttributes(from, to);
      takeChildren(from, to);
    }
  }

  // --- asking for what is new

  const main = document.getElementById("main");
  const live = document.getElementById("live");
  if (!main || !live || !main.dataset.live) return;

  const pauseMilliseconds = Number(main.dataset.live);
  const patienceMilliseconds = 10000;
  const connection = document.getElementById("connection");
  const pause = document.getElementById("pause");
  let timer;
  let isAsking = false;
  let isPaused = false;

  function say(text, isLost) {
    live.classList.toggle("lost", isLost);
    if (connection.textContent !== text) connection.textContent = text;
  }

  async function ask() {
    if (isAsking || isPaused || document.hidden) return;
    isAsking = true;
    try {
      const answer = await fetch(window.location.pathname, {
        cache: "no-store",
        redirect: "error",
        signal: AbortSignal.timeout(patienceMilliseconds),
      });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = page.getElementById("main");
      if (!next) throw new Error("another page");
      if (!isPaused) {
        take(main, next);
        document.title = page.title;
        say("Live", false);
      }
    } catch {
      if (!isPaused && !document.hidden) say("Connection lost, what you see is old", true);
    } finally {
      isAsking = false;
      later();
    }
  }

  function later() {
    window.clearTimeout(timer);
    if (!isPaused && !document.hidden) timer = window.setTimeout(ask, pauseMilliseconds);
  }

  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    say(isPaused ? "Paused" : "Live", false);
    if (!isPaused) ask();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });

  live.hidden = false;
  say("Live", false);
  later();
})();
