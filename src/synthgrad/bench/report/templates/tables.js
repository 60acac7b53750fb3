// Tables that can be sorted: each head of a column becomes a button, a second press turns the order
// round, and cells without a value stay last.
"use strict";

function sortBy(header, position) {
  const body = header.closest("table").tBodies[0];
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.closest("thead").querySelectorAll("[aria-sort]")) {
    other.setAttribute("aria-sort", "none");
  }
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const keyOf = (row) => row.cells[position].dataset.sort ?? "";
  const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  const rows = [...body.rows].sort((a, b) => {
    const [left, right] = [keyOf(a), keyOf(b)];
    if (left === "" || right === "") return (left === "") - (right === "");
    return descending ? compare(right, left) : compare(left, right);
  });
  body.append(...rows);
}

for (const table of document.querySelectorAll("table[data-sortable]")) {
  const headers = [...table.tHead.rows].at(-1).cells;
  for (const [position, header] of [...headers].entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(header, position));
    header.setAttribute("aria-sort", "none");
    header.append(button);
  }
}
