// Asks each second what has changed, keeps what is open, and sends forms without leaving the page. What it puts into the
// page comes from this server, escaped.
"use strict";
(() => {
  const by = (id) => document.getElementById(id);
  const tree = by("tree"), said = by("said");
  if (!tree || !said) return;
  const open = new Set((new URLSearchParams(location.search).get("open") || "").split(",").filter(Boolean));
  let version = tree.dataset.version, stopped = false;

  const say = (text, bad) => {
    said.textContent = text;
    said.classList.toggle("bad", Boolean(bad));
  };
  const address = (path) => path + "?open=" + encodeURIComponent([...open].join(","));

  // Somebody who types in the tree is not interrupted.
  const isTyping = () => tree.contains(document.activeElement) && document.activeElement.matches("input, select");

  const put = (element, html) => {
    if (element.dataset.last === html) return;
    element.dataset.last = html;
    element.innerHTML = html;
  };

  const showTree = async () => {
    const answer = await fetch(address("/tree"));
    if (!answer.ok) return;
    const html = await answer.text();
    const focused = tree.contains(document.activeElement) ? document.activeElement.id : "";
    tree.innerHTML = html;
    if (focused) (by(focused) || tree.querySelector("summary"))?.focus();
  };

  const look = async () => {
    const answer = await fetch(address("/now"));
    if (!answer.ok) throw new Error(answer.status);
    const now = await answer.json();
    put(by("glance"), now.glance);
    put(by("calls"), now.calls);
    put(by("faults"), now.faults);
    if (now.version !== version && !isTyping()) {
      version = now.version;
      await showTree();
    }
    if (stopped) {
      stopped = false;
      say(said.dataset.live);
    }
  };

  const follow = async () => {
    try {
      if (!document.hidden) await look();
    } catch {
      if (!stopped) say(said.dataset.stopped, true);
      stopped = true;
    }
    setTimeout(follow, 1000);
  };

  // `toggle` does not bubble, and fires for what the server sends open: both are why the set is asked first.
  tree.addEventListener("toggle", async (event) => {
    const key = event.target.dataset.key;
    if (!key || event.target.open === open.has(key)) return;
    if (event.target.open) open.add(key);
    else open.delete(key);
    if (event.target.open && !key.startsWith("p")) await showTree().catch(() => {});
  }, true);

  document.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    try {
      const answer = await fetch("/do", {
        method: "POST",
        headers: { accept: "application/json" },
        body: new URLSearchParams(new FormData(form)),
      });
      const told = await answer.json();
      if (answer.ok) {
        const key = form.closest("details")?.dataset.key;
        if (key) {
          open.delete(key);
          by("g-" + key)?.focus();
        }
        await look();
      }
      // Last, so that who reads it sees the page as it is now.
      say(told.said, !answer.ok);
    } catch {
      say(said.dataset.stopped, true);
    }
  });

  say(said.dataset.live);
  setTimeout(follow, 1000);
})();
