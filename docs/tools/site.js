// What scrolls sideways can be reached by keyboard, and a code block's buttons are no landmark of the page.
const mend = () => {
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((one) => { one.tabIndex = 0; });
  document.querySelectorAll("nav.md-code__nav").forEach((one) => { one.setAttribute("role", "none"); });
};
new MutationObserver(mend).observe(document.documentElement, { childList: true, subtree: true });
mend();
