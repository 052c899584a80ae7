// What the page of questions.html.j2 shows. Log-likelihoods are lists [question][option], in nats. The form holds what
// is chosen, and the link's hash holds the form.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const FORM = document.querySelector("form"), GRID = document.getElementById("grid");
const LETTERS = ["A", "B", "C", "D"];
const WORDS = { none: "none: the whole model", "early exit": "the last (early exit)", similarity: "the most alike (similarity)",
  simple: "the deepest, not the last (simple)" };
const MEANINGS = { none: "Nothing is dropped.", "early exit": "Early exit: the model stops before its last layers, and answers there.",
  similarity: "Similarity: the consecutive layers that change the model's state least are dropped, wherever they are.",
  simple: "Simple: the deepest layers are dropped, but the very last one stays." };
let chosen = 0;  // the number of the question that is shown

const field = name => FORM.elements[name];
const setOf = () => DATA.sets[Number(field("set").value)];
const cutsOf = strategy => setOf().cuts.filter(cut => cut.strategy === strategy);
const cut = () => cutsOf(field("strategy").value)[Number(field("size").value)];
const whole = () => cutsOf("none")[0];
const strength = () => Number(field("strength").value);
const escaped = text => Object.assign(document.createElement("i"), { textContent: text }).innerHTML;

// The log-likelihoods of a cut's letters without a share of their means; a row of means is that of a fold
const without = (cut, share) => cut.letters.map((values, i) =>
  values.map((value, letter) => value - share * cut.means[i % cut.means.length][letter]));

const best = values => values.indexOf(Math.max(...values));

// 1 where the right option is the likeliest, shared among equals
function credit(values, answer) {
  const most = Math.max(...values);
  return values[answer] === most ? 1 / values.filter(value => value === most).length : 0;
}

// The mean over the questions of a value of each, and its standard error
function average(values) {
  const { weights } = setOf(), total = weights.reduce((a, b) => a + b), n = values.length;
  const mean = values.reduce((sum, value, i) => sum + value * weights[i], 0) / total;
  const square = values.reduce((sum, value, i) => sum + ((value - mean) * weights[i] / total) ** 2, 0);
  return [mean, Math.sqrt(square * n / (n - 1))];
}

const credits = rows => rows.map((values, i) => credit(values, setOf().answers[i]));
const accuracy = rows => average(credits(rows));

// ---- drawings -------------------------------------------------------------------------------

function scoreOf(place, rows) {
  const [mean, error] = accuracy(rows);
  place.querySelector(".score").innerHTML = `${mean.toFixed(2)} <small>± ${error.toFixed(2)} right</small>`;
}

function drawLetters(place, rows) {
  scoreOf(place, rows);
  const { counts, first, most } = commonest(rows);
  place.querySelector(".commonest").textContent = `It says ${first} ${most} of ${rows.length} times.`;
  place.querySelector(".bars").innerHTML = counts.map((count, letter) => `<div class="bar"><b>${LETTERS[letter]}</b>`
    + `<span><i style="width: ${100 * count / rows.length}%"></i></span><span>${count}</span></div>`).join("");
}

function commonest(rows) {
  const counts = LETTERS.map((_, letter) => rows.filter(values => best(values) === letter).length), first = best(counts);
  return { counts, first: LETTERS[first], most: counts[first] };
}

// How many answers of the cut become right, and wrong, against those as given
function changes(rows) {
  const { answers } = setOf(), isRight = (values, i) => best(values) === answers[i];
  const before = cut().letters.map(isRight), after = rows.map(isRight);
  const count = test => before.filter((was, i) => test(was, after[i])).length;
  return { back: count((was, is) => !was && is), gone: count((was, is) => was && !is) };
}

// Whether removing the whole habit clearly raises the score, question by question
function isHidden(of) {
  const before = credits(of.letters), [rise, error] = average(credits(without(of, 1)).map((after, i) => after - before[i]));
  return rise > 1.96 * error;
}

// What removing the whole habit does, before any slider is moved: a sentence, and a bar each
function drawSummary() {
  const { strategy, n } = cut(), { first, most } = commonest(cut().letters);
  const [given, removed] = [0, 1].map(share => accuracy(without(cut(), share))[0].toFixed(2));
  const begin = strategy === "none" ? "The whole model" : `After dropping ${strategy === "early exit" ? "its last " : ""}${n} ${n === 1 ? "layer" : "layers"}, the model`;
  const { back, gone } = changes(without(cut(), 1));
  const end = isHidden(cut()) ? "The answers that come back were hidden, not lost." : "That is no clear gain.";
  document.getElementById("summary").innerHTML = `<b>${begin} says ${first} to ${most} of ${setOf().answers.length} multiple-choice questions.</b> `
    + `Remove this letter habit, and its score goes from ${given} to ${removed}: `
    + `${back} wrong answers become right, and ${gone} right answers become wrong. <b>${end}</b>`;
  const models = strategy === "none" ? [["Whole model", whole()]] : [["Cut model", cut()], ["Whole model", whole()]];
  const chance = `<s style="left: ${100 / LETTERS.length}%"></s>`;
  document.getElementById("picture").innerHTML = models.flatMap(([name, of]) => [0, 1].map(share => {
    const [mean, error] = accuracy(without(of, share));
    return `<div class="row ${share ? "removed" : ""}"><b>${name}, ${share ? "habit removed" : "as it answers"}</b><span>`
      + `<i style="width: ${100 * mean}%"></i><u style="left: ${100 * (mean - error)}%; width: ${200 * error}%"></u>${chance}</span>`
      + `${mean.toFixed(2)}</div>`;
  })).join("");
}

function drawContent(place) {
  const rows = cut().content;
  place.hidden = !rows;
  place.querySelector(".score").textContent = "";
  place.querySelector(".commonest").textContent = "";
  if (rows) {
    scoreOf(place, rows);
    const before = whole().content && accuracy(whole().content)[0];
    if (before) place.querySelector(".commonest").textContent = `The whole model: ${before.toFixed(2)}.`;
  }
}

function drawGrid(rows) {
  const { answers } = setOf();
  if (GRID.children.length !== rows.length) {
    GRID.innerHTML = rows.map((_, i) => `<button type="button" data-i="${i}" tabindex="-1"></button>`).join("");
  }
  [...GRID.children].forEach((button, i) => {
    const letter = best(rows[i]), isRight = letter === answers[i];
    button.textContent = LETTERS[letter];
    button.className = isRight ? "right" : "";
    button.tabIndex = i === chosen ? 0 : -1;
    button.setAttribute("aria-pressed", i === chosen);
    button.setAttribute("aria-label", `question ${i + 1}: ${LETTERS[letter]}, ${isRight ? "right" : "wrong"}`);
  });
}

function drawQuestion(rows) {
  const set = setOf(), question = set.questions?.[chosen], right = set.answers[chosen];
  const given = cut().letters[chosen], content = cut().content?.[chosen];
  const mark = (values, option) => best(values) === option ? " ◀" : "";
  const lines = LETTERS.map((letter, option) => `<tr class="${option === right ? "correct" : ""}"><th>${letter}</th>`
    + `<td>${question ? escaped(question.options[option]) : ""}${option === right ? " <b>(right)</b>" : ""}</td>`
    + (strength() ? `<td class="number wide">${given[option].toFixed(2)}${mark(given, option)}</td>` : "")
    + `<td class="number">${rows[chosen][option].toFixed(2)}${mark(rows[chosen], option)}</td>`
    + (content ? `<td class="number">${content[option].toFixed(1)}${mark(content, option)}</td>` : "") + "</tr>");
  document.getElementById("question").innerHTML = `<p class="soft">Question ${chosen + 1} of ${set.answers.length}`
    + `${question?.group ? `, ${escaped(question.group)}` : ""}. Numbers are log-likelihoods in nats: the nearer to 0, the likelier. ◀ is the model's letter.</p>`
    + `<p class="text">${question ? escaped(question.text) : escaped(set.source)}</p><table><tr><th></th><th>option</th>`
    + (strength() ? '<th class="number wide">as given</th><th class="number">habit removed</th>' : '<th class="number">by letter</th>')
    + `${content ? '<th class="number">by content</th>' : ""}</tr>${lines.join("")}</table>`;
}

function drawChange(rows) {
  const { back, gone } = changes(rows);
  document.getElementById("change").textContent = strength()
    ? `Against the answers as given, ${back} wrong ones become right and ${gone} right ones wrong.`
    : "No habit is removed: these are the letters as given.";
}

function layers() {
  const { strategy, n, start } = cut();
  if (strategy === "none") return "0";
  return `${n} (${n === 1 ? `layer ${start}` : `layers ${start} to ${start + n - 1}`})`;
}

function draw() {
  const rows = without(cut(), strength());
  chosen = Math.min(chosen, rows.length - 1);
  field("shownSize").value = layers();
  field("shownStrength").value = `${Math.round(100 * strength())} %`;
  drawLetters(document.getElementById("letters"), rows);
  document.getElementById("letters").hidden = cut() === whole();
  const { first, most } = commonest(rows);
  document.getElementById("now").textContent = `Now ${accuracy(rows)[0].toFixed(2)} right; it says ${first} ${most} times.`;
  document.getElementById("meaning").textContent = MEANINGS[cut().strategy];
  drawLetters(document.getElementById("whole"), without(whole(), strength()));
  drawSummary();
  drawContent(document.getElementById("content"));
  drawChange(rows);
  drawGrid(rows);
  drawQuestion(rows);
  document.getElementById("shots").textContent = setOf().shots;
  document.getElementById("source").textContent = setOf().source;
  const { strategy, n } = cut();
  const state = { set: setOf().name, strategy, n, strength: strength(), question: chosen + 1 };
  history.replaceState(null, "", `#${new URLSearchParams(state)}`);
}

// ---- the form and the link ------------------------------------------------------------------

// The strategies and sizes that a question set was asked after; the nearest size stays
function offer(strategy, n) {
  const names = [...new Set(setOf().cuts.map(cut => cut.strategy))];
  field("strategy").replaceChildren(...names.map(name => new Option(WORDS[name], name)));
  field("strategy").value = names.includes(strategy) ? strategy : names.at(-1);
  const sizes = cutsOf(field("strategy").value).map(cut => cut.n);
  field("size").max = sizes.length - 1;
  field("size").disabled = sizes.length === 1;
  const distances = sizes.map(size => Math.abs(size - n));
  field("size").value = distances.indexOf(Math.min(...distances));
}

function restore(text) {
  const state = new URLSearchParams(text.slice(1));
  field("set").value = Math.max(0, DATA.sets.findIndex(set => set.name === state.get("set")));
  offer(state.get("strategy") ?? "early exit", Number(state.get("n") ?? 6));
  field("strength").value = Number(state.get("strength") ?? 0);
  chosen = Math.max(0, Number(state.get("question") ?? 1) - 1);
  draw();
}

let wanted = 6;  // layers dropped, which the whole model does not forget
document.addEventListener("input", ({ target }) => {
  if (target === field("set") || target === field("strategy")) offer(field("strategy").value, wanted);
  if (target === field("size")) wanted = cut().n;
  draw();
});
FORM.addEventListener("submit", event => event.preventDefault());
function choose(i) {
  chosen = i;
  draw();
  GRID.children[i].focus();
}
GRID.addEventListener("click", ({ target }) => { if (target.dataset.i) choose(Number(target.dataset.i)); });
GRID.addEventListener("keydown", event => {
  const across = [...GRID.children].findIndex(button => button.offsetTop > GRID.children[0].offsetTop);
  const line = across === -1 ? GRID.children.length : across;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -line, ArrowDown: line }[event.key];
  if (!step) return;
  event.preventDefault();
  const next = chosen + step;
  if (next >= 0 && next < GRID.children.length) choose(next);
});
addEventListener("hashchange", () => restore(location.hash));
restore(location.hash);
wanted = cut().n || wanted;
