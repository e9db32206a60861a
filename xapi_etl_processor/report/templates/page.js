"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const charts = JSON.parse(document.getElementById("charts").textContent);

// A fixed colour scheme is none of Vega's business: the page's variables give the colours. The
// expression interpreter (ast) needs no eval, which the page forbids.
const draw = (element, chart, datasets, sentence, params = {}) => {
  if (!datasets.rows.length) {
    element.textContent = "Nothing to show.";
    return null;
  }
  const spec = structuredClone(charts[chart]);
  spec.datasets = datasets;
  if (datasets.marks?.length === 0) spec.layer.pop();
  spec.description = sentence;
  for (const param of spec.params ?? []) {
    if (param.name in params) param.value = params[param.name];
  }
  return vegaEmbed(element, spec, { actions: false, renderer: "svg", ast: true, defaultStyle: false, tooltip: false });
};

const clock = (seconds) => {
  const two = (number) => String(number).padStart(2, "0");
  const whole = Math.round(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
};

const ticks = (seconds) => {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000];
  const step = steps.find((one) => seconds / one <= 8) ?? Math.ceil(seconds / 8 / 86400) * 86400;
  return Array.from({ length: Math.floor(seconds / step) + 1 }, (_, at) => at * step);
};

const shown = (value) => (value === null ? "hidden" : value.toLocaleString("en"));

const fill = (root, name, rows) => {
  const body = root.querySelector(`[data-table="${name}"] tbody`);
  body.replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    cells.forEach((text, at) => {
      const cell = document.createElement(at ? "td" : "th");
      if (!at) cell.scope = "row";
      cell.textContent = text;
      row.append(cell);
    });
    return row;
  }));
};

// The item with the highest number above 0, if there is one.
const highest = (items, number) => items.reduce((most, one) => (number(one) > (most ? number(most) : 0) ? one : most), null);

// The days of the section, in milliseconds, and which of them have a label: all of one form.
const calendar = (() => {
  const length = (data.weekly ? 7 : 1) * 86400000;
  const days = data.periods.map(([day]) => Date.parse(day));
  const [first, last] = [days[0], days.at(-1) + length];
  const bars = (last - first) / length;
  if (!data.weekly) {
    const step = Math.ceil(bars / 12);
    const ticks = Array.from({ length: Math.ceil(bars / step) || 0 }, (_, at) => first + (at * step + 0.5) * length);
    return { length, bars, first, last, ticks, form: "%-d %b" };
  }
  const number = (time) => new Date(time).getUTCFullYear() * 12 + new Date(time).getUTCMonth();
  const months = number(last) - number(first);
  const step = [1, 2, 3, 6].find((one) => months / one <= 12) ?? Math.ceil(months / 144) * 12;
  const ticks = [];
  for (let month = number(first) + 1; month <= number(last); month += 1) {
    if (month % step === 0) ticks.push(Date.UTC(2000, month - 24000));
  }
  return { length, bars, first, last, ticks, form: "%b %Y" };
})();

const drawPeriods = (root, element, periods) => {
  const rows = periods.filter(([, sessions]) => sessions !== null)
    .map(([day, sessions]) => ({ day: Date.parse(day), until: Date.parse(day) + calendar.length, sessions }));
  element.style.maxWidth = `${calendar.bars * 60 + 60}px`; // a day is no wider than a day
  fill(root, "periods", periods.map(([day, sessions, viewers]) => [day, shown(sessions), shown(viewers)]));
  const most = highest(periods, ([, sessions]) => sessions);
  const sentence = most ? `The busiest ${data.weekly ? "week began on" : "day was"} ${most[0]}, with ${shown(most[1])} sessions.` : "";
  root.querySelector('[data-text="periods"]').textContent = sentence;
  return draw(element, "periods", { rows }, `${sentence} The table below has the numbers.`, calendar);
};

const open = (details) => {
  if (details.dataset.drawn) return;
  details.dataset.drawn = "yes";
  const video = data.videos[details.dataset.video];
  const root = document.getElementById("video").content.cloneNode(true);
  root.querySelectorAll(".figures dd").forEach((figure, at) => { figure.textContent = video.figures[at]; });
  root.querySelector('[data-text="retention"]').textContent = video.retention;
  const at = (bucket, parts) => (bucket * video.seconds) / parts;
  const place = (bucket, parts) => ({ from_second: at(bucket, parts), to_second: at(bucket + 1, parts) });
  const buckets = video.viewers.map((viewers, bucket) => ({ ...place(bucket, 100), "first watch": viewers, rewatch: video.again[bucket] }));
  const [others, finished] = video.stops;
  const stops = others.map((number, bucket) => ({ ...place(bucket, 100), "not finished": number, finished: finished[bucket] }))
    .filter((stop) => stop["not finished"] || stop.finished);
  const seeks = video.seeks.map(([bin, away, to]) => ({ ...place(bin, 20), "from here": away, "to here": to }));
  const marks = video.marks.map(([from_second, to_second, kind]) => ({ from_second, to_second, kind }));
  fill(root, "retention", video.viewers.map((viewers, bucket) => [clock(at(bucket, 100)), clock(at(bucket + 1, 100)), shown(viewers), shown(video.again[bucket])]));
  fill(root, "stops", stops.map((stop) => [clock(stop.from_second), clock(stop.to_second), shown(stop["not finished"]), shown(stop.finished)]));
  fill(root, "seeks", seeks.map((seek) => [clock(seek.from_second), clock(seek.to_second), shown(seek["from here"]), shown(seek["to here"])]));
  fill(root, "top_seeks", video.top_seeks.map(([from, to, count, viewers]) => [from, to, shown(count), shown(viewers)]));
  const list = root.querySelector('[data-list="learners"]');
  list?.replaceChildren(...video.not_watched_by.map((number) => {
    const item = document.createElement("li");
    item.textContent = data.learners[number];
    return item;
  }));
  const elements = Object.fromEntries([...root.querySelectorAll("[data-chart]")].map((one) => [one.dataset.chart, one]));
  const scale = { seconds: video.seconds, ticks: ticks(video.seconds) };
  // Charts measure their place, so it must be on the page.
  const tables = [...root.children].reduce((holder, child) => (holder.append(child), holder), document.createElement("div"));
  details.append(tables);
  draw(elements.retention, "retention", { rows: buckets, marks }, `${video.retention} The table below has the numbers.`, scale);
  const most = highest(stops, (stop) => stop["not finished"]);
  const stopped = most ? `Viewers who did not finish the video stopped most often between ${clock(most.from_second)} and ${clock(most.to_second)} (${shown(most["not finished"])} of them).` : "";
  const [top] = video.top_seeks;
  const sought = top ? `The most frequent seek goes from ${top[0]} to ${top[1]}, ${shown(top[2])} times.` : "";
  tables.querySelector('[data-text="stops"]').textContent = stopped;
  tables.querySelector('[data-text="seeks"]').textContent = sought;
  draw(elements.stops, "stops", { rows: stops }, `${stopped} The table below has the numbers.`, scale);
  draw(elements.seeks, "seeks", { rows: seeks }, `${sought} The table below has the numbers.`, scale);
  drawPeriods(tables, elements.periods, video.periods);
};

const spark = (cell) => {
  const video = data.videos[cell.dataset.video];
  const rows = video.viewers.map((viewers, bucket) => ({ bucket, viewers }));
  if (rows.length) draw(cell, "spark", { rows }, video.retention);
};

const sort = (heading) => {
  const table = heading.closest("table");
  const column = [...heading.parentElement.children].indexOf(heading);
  const text = heading.firstElementChild.dataset.sort === "text";
  const up = heading.ariaSort ? heading.ariaSort === "descending" : text;
  const value = (row) => (text ? row.cells[column].textContent : parseFloat(row.cells[column].dataset.value));
  const compare = (a, b) => (text ? a.localeCompare(b) : (Number.isNaN(a) ? -1 : a) - (Number.isNaN(b) ? -1 : b));
  const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b)) * (up ? 1 : -1));
  table.tBodies[0].append(...rows);
  for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
  heading.ariaSort = up ? "ascending" : "descending";
};

const openNamed = () => {
  const named = document.getElementById(location.hash.slice(1));
  if (named instanceof HTMLDetailsElement) {
    named.open = true;
    named.scrollIntoView();
    named.querySelector("summary").focus();
  }
};

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sort(button.parentElement));
}
for (const details of document.querySelectorAll("details.video")) {
  details.addEventListener("toggle", () => details.open && open(details));
}
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      spark(entry.target);
    }
  }
}, { rootMargin: "200px" });
document.querySelectorAll(".spark").forEach((cell) => seen.observe(cell));
if (document.getElementById("section-periods")) {
  drawPeriods(document.getElementById("section-table"), document.getElementById("section-periods"), data.periods);
}
// Paper shows all there is: no reader can open or scroll it.
let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details.video:not([open])")];
  for (const details of opened) {
    details.open = true;
    open(details);
  }
  document.querySelectorAll(".spark:empty").forEach(spark);
});
window.addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));
window.addEventListener("hashchange", openNamed);
openNamed();
