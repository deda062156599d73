//! The page's style: light and dark, phone and desk, paper.

/// Colours come in pairs that differ by at least 4.5 : 1. A closed `<details>` is opened on paper.
pub(super) const CSS: &str = "
:root{--bg:#fff;--fg:#1b1f24;--muted:#57606a;--line:#d0d7de;--card:#f6f8fa;--good:#1a7f37;--warn:#8a5a00;--bad:#cf222e;--info:#0860ca;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--muted:#9198a1;--line:#3d444d;--card:#151b23;--good:#3fb950;--warn:#d29922;--bad:#ff6a61;--info:#58a6ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1rem;background:var(--bg);color:var(--fg);font:1rem/1.5 system-ui,-apple-system,'Segoe UI','PingFang SC','Microsoft YaHei','Noto Sans CJK SC','Noto Sans SC',sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.25rem 0 .75rem}h2{font-size:1.125rem;margin:0 0 .5rem}
section{border:1px solid var(--line);border-radius:.5rem;padding:1rem;margin:0 0 1rem;background:var(--card)}
p{margin:.25rem 0}code,pre{font:.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{white-space:pre-wrap;margin:.5rem 0;padding:.5rem;border:1px solid var(--line);border-radius:.25rem;background:var(--bg)}
.muted,.id,dt,.arrow{color:var(--muted)}.count{color:var(--muted);font-weight:400;font-variant-numeric:tabular-nums}
.badge{display:inline-block;margin:0;padding:.125rem .75rem;border-radius:1rem;border:2px solid currentColor;font-weight:700}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
section.next{color:var(--fg);border-left:.375rem solid var(--info)}section.next.good{border-left-color:var(--good)}section.next.warn{border-left-color:var(--warn)}section.next.bad{border-left-color:var(--bad)}
.error{font-weight:600}
.facts{display:flex;flex-wrap:wrap;gap:.25rem 2rem;margin:0 0 1rem}.facts div{display:flex;gap:.5rem}dd{margin:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:.5rem;margin:0 0 .5rem}
.tiles div{padding:.5rem .75rem;border:1px solid var(--line);border-radius:.375rem;background:var(--bg)}.tiles dt{font-size:.875rem}
.tiles dd{font-size:1.375rem;font-variant-numeric:tabular-nums}.tiles .create dd,.mark.create,ins{color:var(--good)}.tiles .update dd,.mark.update{color:var(--warn)}.tiles .delete dd,.mark.delete,del{color:var(--bad)}.tiles .warn dd{color:var(--warn)}
.mark{font:700 1rem ui-monospace,monospace}ins{text-decoration:none}
ul{list-style:none;margin:0;padding:0}.tree,.fields{padding-left:1rem;border-left:1px solid var(--line);margin-left:.375rem}
.tree>li,.rows>li{content-visibility:auto;contain-intrinsic-size:auto 1.75rem}
.lines{padding-left:1rem;border-left:1px solid var(--line);margin-left:.375rem;white-space:pre-wrap;content-visibility:auto;contain-intrinsic-size:auto 200rem}
summary{cursor:pointer;padding:.125rem 0}summary:focus-visible{outline:3px solid var(--info);outline-offset:2px;border-radius:.25rem}
.rows>li{border-top:1px solid var(--line);padding:.25rem 0}.kind{font-weight:600}.reason{display:block;padding-left:1rem}
svg{display:block;width:100%;height:auto;max-width:47.5rem}svg text{fill:var(--fg);font-size:15px}.sign,.mark-at{text-anchor:middle}.scale{text-anchor:end}svg.timeline{max-width:34rem}line.axis{stroke:var(--muted)}
rect.first,path.first{fill:var(--info)}rect.repeat,path.repeat{fill:var(--warn)}rect.throttled,path.throttled{fill:var(--bad)}path.wait{fill:var(--muted)}rect.good{fill:var(--good)}rect.warn{fill:var(--warn)}rect.bad{fill:var(--bad)}rect.this{fill:var(--fg)}
.key{display:inline-block;width:.75rem;height:.75rem;margin-right:.375rem;border-radius:.125rem}.key.first{background:var(--info)}.key.repeat{background:var(--warn)}.key.throttled{background:var(--bad)}.key.wait{background:var(--muted)}.keys{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;font-size:.9375rem}
table{overflow-wrap:break-word;border-collapse:collapse;width:100%;margin:.5rem 0;font-size:.9375rem}th,td{text-align:left;padding:.25rem .5rem;border-top:1px solid var(--line);font-weight:400;vertical-align:top}thead th{font-weight:600;border-top:0}td{font-variant-numeric:tabular-nums}
footer{color:var(--muted);font-size:.875rem}
@media (max-width:30rem){body{padding:.5rem}section{padding:.75rem}th,td{padding:.25rem}.tree,.fields,.lines{padding-left:.5rem}}
@media print{:root{--bg:#fff;--fg:#000;--muted:#444;--line:#999;--card:#fff;--good:#1a7f37;--warn:#8a5a00;--bad:#cf222e;--info:#0860ca}body{max-width:none;padding:0}section{break-inside:auto}details::details-content{content-visibility:visible;block-size:auto}.tree>li,.rows>li,.lines{content-visibility:visible}.key{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
";
