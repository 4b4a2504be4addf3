// What a person with this screen cannot read: returned as a list of sentences, empty where all is well.
// The body of a function: arguments and return are the test's.

const SLACK = 1.5; // pixels: rounding, and the edges of borders
const root = document.scrollingElement;
const wrong = [];

const name = (element) => {
  const id = element.id ? `#${element.id}` : "";
  const classes = [...element.classList].map((each) => `.${each}`).join("");
  const words = element.textContent.trim().replace(/\s+/g, " ").slice(0, 40);
  return `${element.localName}${id}${classes} "${words}"`;
};

const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
const scroller = (element) => {
  for (let each = element; each && each !== root; each = each.parentElement) if (scrolls(each)) return each;
  return null;
};

// Folded away, or meant for screen readers alone: of a pixel's size, or clipped.
const isUnseen = (element) => {
  if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) return true;
  for (let each = element; each && each !== document.body; each = each.parentElement) {
    const style = getComputedStyle(each);
    const box = each.getBoundingClientRect();
    if (style.position === "absolute" && (box.width <= 1 || box.height <= 1 || style.clipPath !== "none")) return true;
    if (style.position === "absolute" && (box.right <= 0 || box.bottom + scrollY <= 0)) return true;
  }
  return false;
};

const isAbove = (element) => {
  for (let each = element; each; each = each.parentElement)
    if (["fixed", "sticky"].includes(getComputedStyle(each).position)) return true;
  return false;
};

if (innerWidth !== arguments[0]) wrong.push(`the page is ${innerWidth} pixels wide, not ${arguments[0]}`);
if (root.scrollWidth > root.clientWidth) wrong.push(`the page scrolls sideways: ${root.scrollWidth} pixels`);

const lines = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || ["SCRIPT", "NOSCRIPT", "STYLE"].includes(element.tagName)) continue;
  const range = document.createRange();
  range.selectNodeContents(texts.currentNode);
  const boxes = [...range.getClientRects()].filter((box) => box.width > 0 && box.height > 0);
  if (!boxes.length || isUnseen(element)) continue;
  const outer = scroller(element);
  for (const box of boxes) {
    if (!outer && (box.left < -SLACK || box.right > innerWidth + SLACK)) wrong.push(`beyond the edge: ${name(element)}`);
    if (!isAbove(element)) lines.push({ element, box, outer });
  }
}

for (const element of document.body.querySelectorAll("*")) {
  const style = getComputedStyle(element);
  if (isUnseen(element) || element.closest("svg")) continue;
  const hides = (way) => ["hidden", "clip"].includes(way);
  if (hides(style.overflowX) && element.scrollWidth > element.clientWidth + SLACK) wrong.push(`cut off: ${name(element)}`);
  if (hides(style.overflowY) && element.scrollHeight > element.clientHeight + SLACK) wrong.push(`cut off: ${name(element)}`);
  if (scrolls(element) && element.scrollWidth > element.clientWidth && element.tabIndex < 0)
    wrong.push(`scrolls sideways, but not by keyboard: ${name(element)}`);
}

for (let i = 0; i < lines.length; i += 1)
  for (let j = i + 1; j < lines.length; j += 1) {
    const [one, other] = [lines[i], lines[j]];
    if (one.element === other.element || one.outer !== other.outer) continue;
    const across = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
    const down = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
    // Boxes of lines are higher than their letters: only what shares a good part of a line is in its way.
    if (across > SLACK && down > 0.4 * Math.min(one.box.height, other.box.height))
      wrong.push(`on top of one another: ${name(one.element)} and ${name(other.element)}`);
  }

return [...new Set(wrong)];
