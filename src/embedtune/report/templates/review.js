"use strict";
const TEXTS = {
  en: {
    show: "Show", split: "Split", search: "Search", save: "Save decisions", other: "中文",
    all: "all", open: "undecided", in: "in", out: "left out by a filter", flagged: "flagged",
    done: "decided", any: "any", keep: "Keep", edit: "Edit", reject: "Reject", undo: "Undecided",
    back: "Back", next: "Next", none: "No query fits.", relevant: "Answers it, as far as is known",
    candidates: "Found for it; tick what answers it too", also: "answers it too", note: "Note",
    wording: "New wording", left: "Left out", page: "page", answer: "Answer given",
    count: (done, all) => `${done} of ${all} decided`, place: (n, all) => `${n} of ${all}`,
    keys: "Keys: K keep, E edit, R reject, U undecided, 1 to 9 tick a passage, ← → move, S save.",
    how: "Decisions stay in this browser until they are saved. Then: embedtune review RUN --decisions FILE, and embedtune run again.",
  },
  zh: {
    show: "显示", split: "划分", search: "搜索", save: "保存决定", other: "English",
    all: "全部", open: "未决定", in: "已采用", out: "被过滤", flagged: "有标记",
    done: "已决定", any: "任意", keep: "保留", edit: "修改", reject: "拒绝", undo: "撤销",
    back: "上一条", next: "下一条", none: "没有符合条件的查询。", relevant: "目前已知能回答的段落",
    candidates: "检索到的段落；请勾选同样能回答的", also: "也能回答", note: "备注",
    wording: "新的表述", left: "被过滤", page: "页", answer: "给出的答案",
    count: (done, all) => `已决定 ${done} / ${all}`, place: (n, all) => `第 ${n} / ${all} 条`,
    keys: "快捷键：K 保留，E 修改，R 拒绝，U 撤销，1 到 9 勾选段落，← → 翻页，S 保存。",
    how: "决定在保存之前只存在于此浏览器。保存后运行：embedtune review RUN --decisions FILE，然后再次运行 embedtune run。",
  },
};
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const store = "embedtune-review-" + location.pathname;
let language = (navigator.language || "").toLowerCase().startsWith("zh") ? "zh" : "en";
let decisions = {};
let unsaved = {}; // id -> { made, was }: decided in this browser, and what the run said then
let here = 0;
let visible = [];
let editing = false;

const saved = (id) => JSON.stringify(data.decided[id] || null);

function load() {
  for (const [id, row] of Object.entries(data.decided)) decisions[id] = { ...row };
  try {
    unsaved = JSON.parse(localStorage.getItem(store) || "{}");
  } catch { /* a browser that keeps nothing: decisions last as long as the page */ }
  for (const [id, { made, was }] of Object.entries(unsaved)) {
    if (was !== saved(id)) delete unsaved[id]; // decided elsewhere since
    else if (made) decisions[id] = made;
    else delete decisions[id];
  }
}

function remember(id) {
  const made = decisions[id] || null;
  if (JSON.stringify(made) === saved(id)) delete unsaved[id];
  else unsaved[id] = { made, was: saved(id) };
  try { localStorage.setItem(store, JSON.stringify(unsaved)); } catch { /* as above */ }
}

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const decided = (item) => { const made = decisions[item.id]; return made && made.decision; };

const FILTERS = {
  all: () => true, open: (item) => !decided(item), in: (item) => !item.reason,
  out: (item) => item.reason, flagged: (item) => item.flags.length, done: decided,
};

function refresh(stay) {
  const current = visible[here];
  const wanted = at("search").value.trim().toLowerCase();
  visible = data.items.filter((item) =>
    FILTERS[at("filter").value](item) &&
    (!at("split").value || item.split === at("split").value) &&
    (!wanted || item.text.toLowerCase().includes(wanted)));
  here = stay && visible.includes(current) ? visible.indexOf(current) : Math.min(here, Math.max(0, visible.length - 1));
  draw();
}

function decide(action) {
  const item = visible[here];
  if (!item) return;
  const made = decisions[item.id] || { query: item.id };
  if (action) made.decision = action; else { delete made.decision; delete made.relevant; }
  editing = action === "edit";
  if (action === "edit") made.text = made.text || item.text;
  if (!made.decision && !made.note) delete decisions[item.id];
  else decisions[item.id] = made;
  remember(item.id);
  if (action === "keep" || action === "reject") move(1); else draw();
}

function tick(name) {
  const item = visible[here];
  const made = decisions[item.id] || { query: item.id };
  const span = data.passages[name].span;
  const same = (other) => other.document === span.document && other.start === span.start && other.end === span.end;
  const marked = (made.relevant || []).filter((other) => !same(other));
  made.relevant = marked.length === (made.relevant || []).length ? [...marked, span] : marked;
  if (!made.decision) made.decision = "keep";
  decisions[item.id] = made;
  remember(item.id);
  draw();
}

function move(step) {
  editing = false;
  const item = visible[here];
  if (at("filter").value === "open" && item && decided(item)) { refresh(false); return; }
  here = Math.max(0, Math.min(visible.length - 1, here + step));
  draw();
  at("card").focus({ preventScroll: true });
}

function passage(name, parts, number) {
  const t = TEXTS[language];
  const shown = data.passages[name];
  const text = make("div", { className: "text", dir: "auto", lang: shown.language });
  if (parts) text.append(parts[0], make("mark", {}, parts[1]), parts[2]); else text.append(shown.text);
  const where = [shown.source, shown.page === null ? "" : `${t.page} ${shown.page}`, shown.section];
  const box = make("div", { className: "passage" },
    make("p", { className: "where" }, make("bdi", {}, where.filter(Boolean).join(" · "))), text);
  if (number) {
    const made = decisions[visible[here].id];
    const input = make("input", { type: "checkbox", checked: ((made && made.relevant) || []).some((span) =>
      span.document === shown.span.document && span.start === shown.span.start && span.end === shown.span.end) });
    input.addEventListener("change", () => tick(name));
    box.prepend(make("label", {}, input, ` ${number}. ${t.also}`));
  }
  return box;
}

function draw() {
  const t = TEXTS[language];
  document.documentElement.lang = language;
  document.querySelectorAll("[data-t]").forEach((node) => { node.textContent = t[node.dataset.t]; });
  at("language").textContent = t.other;
  at("save").textContent = t.save;
  at("title").textContent = data.title;
  for (const option of at("filter").options) option.textContent = t[option.value];
  at("split").options[0].textContent = t.any;
  const done = data.items.filter(decided).length;
  at("progress").max = data.items.length || 1;
  at("progress").value = done;
  at("count").textContent = t.count(done, data.items.length);
  const item = visible[here];
  if (!item) { at("card").replaceChildren(make("p", {}, t.none)); return; }
  const made = decisions[item.id] || {};
  const buttons = ["keep", "edit", "reject"].map((action) => {
    const button = make("button", { type: "button", className: action }, t[action]);
    button.setAttribute("aria-pressed", String(made.decision === action));
    button.addEventListener("click", () => decide(action));
    return button;
  });
  const undo = make("button", { type: "button" }, t.undo);
  undo.addEventListener("click", () => decide(""));
  const back = make("button", { type: "button", id: "back", disabled: here === 0 }, t.back);
  back.addEventListener("click", () => move(-1));
  const next = make("button", { type: "button", id: "next", disabled: here === visible.length - 1 }, t.next);
  next.addEventListener("click", () => move(1));
  const facts = [t.place(here + 1, visible.length), item.split, item.style, item.origin, ...item.flags];
  const parts = [
    make("p", { className: "facts" }, facts.filter(Boolean).join(" · ")),
    make("p", { className: "query", dir: "auto", lang: item.language },
      made.decision === "edit" ? made.text : item.shown),
  ];
  if (item.reason) parts.push(make("p", { className: "reason" }, `${t.left}: ${item.reason}`));
  if (item.answer) parts.push(make("p", {}, `${t.answer}: ${item.answer}`));
  parts.push(make("div", { className: "line" }, ...buttons, undo, make("span", { className: "grow" }), back, next));
  if (made.decision === "edit") {
    const area = make("textarea", { rows: 2, value: made.text || item.text });
    area.setAttribute("aria-label", t.wording);
    area.addEventListener("input", () => { made.text = area.value; remember(item.id); });
    parts.push(area);
    if (editing) setTimeout(() => area.focus(), 0);
  }
  const note = make("input", { type: "text", value: made.note || "", placeholder: t.note });
  note.setAttribute("aria-label", t.note);
  note.addEventListener("input", () => {
    made.query = item.id; made.note = note.value; decisions[item.id] = made; remember(item.id);
  });
  parts.push(note, make("h2", {}, t.relevant));
  item.relevant.forEach((entry) => parts.push(passage(entry.id, entry.parts, 0)));
  if (item.candidates.length) parts.push(make("h2", {}, t.candidates));
  item.candidates.forEach((name, place) => parts.push(passage(name, null, place + 1)));
  at("card").replaceChildren(...parts);
}

function save() {
  const lines = data.items
    .map(({ id }) => decided({ id }) ? decisions[id] : data.decided[id] && { query: id, decision: "undecided" })
    .filter(Boolean).map((made) => JSON.stringify(made));
  const link = make("a", {
    href: URL.createObjectURL(new Blob([lines.join("\n"), lines.length ? "\n" : ""], { type: "application/jsonl" })),
    download: "decisions.jsonl",
  });
  document.body.append(link);
  link.click();
  link.remove();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(input|textarea|select)$/i.test(event.target.tagName) && event.target.type !== "checkbox") {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const actions = {
    k: () => decide("keep"), e: () => decide("edit"), r: () => decide("reject"), u: () => decide(""),
    s: save, ArrowRight: () => move(1), ArrowLeft: () => move(-1),
  };
  const item = visible[here];
  const number = Number(event.key);
  const action = number >= 1 && item && item.candidates[number - 1]
    ? () => tick(item.candidates[number - 1]) : actions[event.key];
  if (action) { event.preventDefault(); action(); }
});

load();
for (const name of Object.keys(FILTERS)) at("filter").append(make("option", { value: name }));
at("split").append(make("option", { value: "" }));
for (const name of [...new Set(data.items.map((item) => item.split))].filter(Boolean))
  at("split").append(make("option", { value: name }, name));
at("filter").addEventListener("change", () => { here = 0; refresh(false); });
at("split").addEventListener("change", () => { here = 0; refresh(false); });
at("search").addEventListener("input", () => { here = 0; refresh(false); });
at("save").addEventListener("click", save);
at("language").addEventListener("click", () => { language = language === "en" ? "zh" : "en"; draw(); });
refresh(false);
