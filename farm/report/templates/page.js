// Draws the plots of the block that is shown, and lets the controls choose what they show.
const config = JSON.parse(document.getElementById("config").textContent);
const articles = [...document.querySelectorAll("article.block")];
const blocks = new Map();

// Vega's level that keeps quiet about a layer that has nothing to draw, as where no method fails.
const ERRORS = 1;

// On a phone names stand over their rows: what NARROW and NAME_PIXELS say in Python.
const NARROW_PIXELS = 520, NAME_PIXELS = 20;

// The height of a plot that has a row for each method that is shown; none where it has not.
function heightOf(block, place, rowPixels) {
  const row = rowPixels + (place.clientWidth < NARROW_PIXELS ? NAME_PIXELS : 0);
  return rowPixels && row * Math.max(1, block.shown.length);
}

// What a block's controls say: its views once drawn, the methods shown, those in colour, and the length.
function blockOf(article) {
  const number = article.dataset.number;
  if (!blocks.has(number)) {
    const data = JSON.parse(document.getElementById(`plots-${number}`).textContent);
    blocks.set(number, { ...data, views: [], drawn: null, asked: 0, shown: [...data.order], colours: [...data.focus] });
  }
  return blocks.get(number);
}

async function draw(article) {
  const block = blockOf(article);
  for (const place of article.querySelectorAll("[data-plot]")) {
    const options = { actions: false, renderer: "svg", ast: true, config, logLevel: ERRORS, tooltip: { disableDefaultStyle: true } };
    const spec = block.plots[place.dataset.plot];
    const rowPixels = spec.usermeta?.row_pixels;
    const height = heightOf(block, place, rowPixels) ?? spec.height;
    const { view } = await vegaEmbed(place, { ...spec, height }, options);
    // The figure says what the plot is; its marks, one by one, would only be noise to a screen reader.
    place.querySelector("svg")?.setAttribute("aria-hidden", "true");
    block.views.push({ view, place, rowPixels });
    performance.mark(block.views.length === 1 ? "first plot" : "plot");
    await new Promise((resolve) => setTimeout(resolve));
  }
  performance.mark("all plots");
  article.dataset.drawn = "true";
}

// Hidden methods give their colour to the next that has none; the others keep theirs.
function recolour(block) {
  const waiting = block.shown.filter((name) => !block.focus.includes(name));
  block.colours = block.focus.map((name) => (block.shown.includes(name) ? name : waiting.shift() ?? name));
}

// Tells the plots what the controls say, once they are drawn and whatever was asked for before is done.
function update(article) {
  const block = blockOf(article);
  recolour(block);
  mark(article);
  delete article.dataset.drawn;
  const asked = (block.asked += 1);
  block.drawn = block.drawn.then(() => (asked === block.asked ? redraw(article) : null));
}

async function redraw(article) {
  const block = blockOf(article);
  const length = article.querySelector("form.controls").elements.length_tokens;
  for (const { view, place, rowPixels } of block.views) {
    view.signal("shown", block.shown).signal("focus", block.colours);
    if (length) view.signal("length", Number(length.value));
    if (rowPixels) view.height(heightOf(block, place, rowPixels));
    await view.runAsync();
  }
  article.dataset.drawn = "true";
}

// What is no plot and shows the choice all the same: rows of tables, boxes, swatches, and the count.
function mark(article) {
  const block = blockOf(article);
  const form = article.querySelector("form.controls");
  if (!form) return;
  for (const row of article.querySelectorAll("tr[data-method]")) {
    row.hidden = block.order.includes(row.dataset.method) && !block.shown.includes(row.dataset.method);
  }
  for (const box of form.querySelectorAll("input[name=method]")) {
    box.checked = block.shown.includes(box.value);
    const slot = block.colours.indexOf(box.value);
    box.parentElement.querySelector(".swatch").style.background = slot < 0 ? "var(--other)" : `var(--s${slot})`;
  }
  form.querySelector(".count").textContent = `${block.shown.length} of ${block.order.length} shown`;
}

function choose(article, names) {
  const block = blockOf(article);
  block.shown = block.order.filter((name) => names.includes(name));
  update(article);
}

function listen(article) {
  const form = article.querySelector("form.controls");
  if (!form) return;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    const boxes = [...form.querySelectorAll("input[name=method]:checked")];
    if (event.target.name === "method") choose(article, boxes.map((box) => box.value));
    else update(article);
  });
  form.addEventListener("click", (event) => {
    const block = blockOf(article);
    const names = { all: block.order, focus: block.focus, front: block.front }[event.target.dataset?.choose];
    if (names) choose(article, names);
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && form.querySelector("details").removeAttribute("open"));
  document.addEventListener("click", (event) => {
    if (!form.contains(event.target)) form.querySelector("details").removeAttribute("open");
  });
}

function show(number) {
  for (const article of articles) article.hidden = article.dataset.number !== number;
  for (const link of document.querySelectorAll("a[data-block]")) {
    if (link.dataset.block === number) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  const article = articles.find((each) => each.dataset.number === number);
  if (!article) return;
  const block = blockOf(article);
  mark(article);
  block.drawn ??= draw(article);
}

// The block that an address ends in, or the one given where it ends in none that there is.
function wanted(otherwise) {
  const number = location.hash.match(/^#(?:block-|b)(\d+)/)?.[1];
  return articles.some((each) => each.dataset.number === number) ? number : otherwise;
}

articles.forEach(listen);
addEventListener("hashchange", () => show(wanted(articles.find((each) => !each.hidden)?.dataset.number)));
show(wanted("0"));
