// Light or dark: the system's choice until the button is pressed. Listeners of "themechange" redraw.
"use strict";

for (const element of document.querySelectorAll("[data-needs-js]")) element.hidden = false;

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : systemIsDark.matches;
}

function themeChanged() {
  themeButton.setAttribute("aria-pressed", String(isDark()));
  document.dispatchEvent(new Event("themechange"));
}

themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  themeChanged();
});
systemIsDark.addEventListener("change", themeChanged);
themeChanged();
