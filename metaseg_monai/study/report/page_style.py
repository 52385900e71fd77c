"""The look of the report's page: system fonts, one column of text, a list of contents beside it."""

CSS = """
:root {
  --ink: #1c2126; --soft: #5c6670; --line: #dfe3e7; --faint: #f5f7f9;
  --accent: #14648f; --accent-faint: #eef5fa;
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; color: var(--ink); background: #fff;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: lining-nums;
}
.page { max-width: 57rem; margin: 0 auto; padding: 2.6rem 1.25rem 4rem; }
h1 { font-size: 1.95rem; line-height: 1.2; letter-spacing: -.01em; margin: 0; }
h2 {
  font-size: 1.32rem; line-height: 1.3; margin: 2.6rem 0 .5rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); scroll-margin-top: .5rem;
}
p { margin: .55rem 0; max-width: 46rem; text-wrap: pretty; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .18em; }
code {
  font: .86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  background: var(--faint); border-radius: 3px; padding: .1em .3em; overflow-wrap: anywhere;
}
.question { font-size: 1.12rem; line-height: 1.5; color: var(--soft); margin: .7rem 0 0; }

.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem 1.6rem;
  margin: 1.6rem 0 0; padding: .9rem 0; border: solid var(--line); border-width: 1px 0;
}
.facts div { min-width: 0; }
.facts dt { font-size: .8rem; line-height: 1.4; color: var(--soft); }
.facts dd { margin: 0; font-size: .95rem; line-height: 1.4; font-weight: 600;
  overflow-wrap: anywhere; }
.facts code { background: none; padding: 0; font: inherit; }

.found {
  margin: 1.6rem 0 0; padding: 1.15rem 1.4rem 1.25rem; background: var(--accent-faint);
  border-left: 4px solid var(--accent); border-radius: 0 6px 6px 0;
}
.found h2 { font-size: 1.1rem; margin: 0 0 .5rem; padding: 0; border: 0; }
.found dl { margin: 0; display: grid; grid-template-columns: 7.5rem 1fr; gap: .55rem 1.2rem; }
.found dt { font-weight: 600; color: var(--accent); }
.found dd { margin: 0; min-width: 0; }
.found p { margin: 0 0 .5rem; }
.found p:last-child { margin-bottom: 0; }

nav { margin: 1.6rem 0 0; font-size: .92rem; line-height: 1.45; }
nav strong { font-size: .8rem; font-weight: 400; color: var(--soft); }
nav ol { list-style: none; margin: .3rem 0 0; padding: 0; columns: 16rem auto; }
nav li { padding: .17rem 0; break-inside: avoid; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }

figure { margin: 1.7rem 0 2rem; }
figure.picture img { display: block; max-width: 100%; height: auto; }
figure.picture figcaption { margin-top: .6rem; font-size: .9rem; line-height: 1.5;
  color: var(--soft); max-width: 46rem; text-wrap: pretty; }
figure.table figcaption { font-weight: 600; margin-bottom: .5rem; }
.note { color: var(--soft); font-size: .88rem; line-height: 1.5; margin: .55rem 0 0; }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table {
  border-collapse: collapse; font-size: .9rem; line-height: 1.4;
  font-variant-numeric: tabular-nums lining-nums;
}
th, td { padding: .36rem .8rem; text-align: right; vertical-align: baseline;
  white-space: nowrap; border-bottom: 1px solid #eceff1; }
th { font-weight: 500; }
thead th { color: var(--soft); font-size: .94em; border-bottom: 0; vertical-align: bottom; }
thead tr:last-child th, thead th[rowspan] { border-bottom: 1.5px solid #8b959e; }
thead th[colspan] { text-align: center; color: var(--ink);
  border-bottom: 1px solid var(--line); }
th:first-child[scope=row], thead tr:first-child th:first-child {
  text-align: left; position: sticky; left: 0; background: #fff;
}
tbody tr:last-child > * { border-bottom: 1.5px solid #8b959e; }
tbody tr:hover > * { background: var(--faint); }
td b { font-weight: 700; }
td u { text-decoration-thickness: 1px; text-underline-offset: .2em; }
th.text, td.text { text-align: left; }
th.long, td.long { text-align: left; white-space: normal; min-width: 14rem; }
.spread { color: var(--soft); font-size: .88em; }
th.start, td.start { border-left: 1px solid var(--line); }
.wide th, .wide td { padding-left: .4rem; padding-right: .4rem; }
.wide .spread { display: block; line-height: 1.25; }
.wide td { line-height: 1.3; }
.wide thead th, .wide td.text { white-space: normal; }
.wide td.long { min-width: 10rem; }
.wider { font-size: .84rem; }

details { margin: 1.1rem 0; border: 1px solid var(--line); border-radius: 6px; }
details > summary { cursor: pointer; padding: .55rem .95rem; font-weight: 500;
  color: var(--accent); }
details[open] > summary { border-bottom: 1px solid var(--line); }
details > div { padding: .3rem .95rem .6rem; }
details figure { margin: 1rem 0 1.2rem; }

@media (min-width: 72rem) {
  .page { max-width: 74rem; display: grid; grid-template-columns: 12rem minmax(0, 1fr);
    column-gap: 3.2rem; padding: 3.2rem 2rem 5rem; }
  .page > * { grid-column: 2; }
  .page > nav { grid-column: 1; grid-row: 1 / span 200; margin-top: .4rem; }
  nav > div { position: sticky; top: 2rem; max-height: calc(100vh - 4rem); overflow-y: auto; }
  nav ol { columns: auto; border-left: 2px solid var(--line); }
  nav li { padding: .24rem 0 .24rem .8rem; }
}
@media (max-width: 34rem) {
  .page { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  h2 { font-size: 1.2rem; margin-top: 2.6rem; }
  .facts { grid-template-columns: 1fr 1fr; gap: .7rem 1rem; }
  .found { padding: 1rem; }
  .found dl { display: block; }
  .found dd + dt { margin-top: .8rem; }
  th, td { padding: .34rem .55rem; }
  .spread { display: block; line-height: 1.25; }
}
@media print {
  @page { margin: 16mm 15mm; }
  html { font-size: 10pt; }
  body { font-size: 1rem; }
  .page { display: block; max-width: none; padding: 0; }
  nav { display: none; }
  a { color: inherit; text-decoration: none; }
  p, figure.picture figcaption { max-width: none; }
  h2 { margin-top: 1.8rem; break-after: avoid; }
  .found, figure.picture, tr { break-inside: avoid; }
  .found { border: 1px solid #8b959e; border-left-width: 4px; background: none; }
  figcaption { break-after: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 8pt; }
  th, td, .wide th, .wide td { padding: .15rem .3rem; }
  .wide { font-size: 7pt; }
  .wider { font-size: 5.5pt; }
  .wider th, .wider td { padding: .1rem .15rem; }
  th:first-child { position: static !important; }
  figure.picture img { max-height: 220mm; }
  details::details-content { display: block; content-visibility: visible; block-size: auto; }
}
"""
