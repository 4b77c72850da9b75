# Copyright (c) The monai_landmarks developers
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The report's style sheet: light and dark by the reader's setting, always light on paper."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root{color-scheme:light dark;--ink:#202124;--soft:#5f6368;--page:#f5f6f8;--card:#fff;--line:#dcdfe4;--mark:#0b57a4;
--bar:#7db8de;--warn:#a33b00}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a6abb3;--page:#17191c;--card:#22252a;--line:#3a3f46;
--mark:#8cc8f5;--bar:#33729c;--warn:#ffab76}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
header,main{max-width:1180px;margin:0 auto;padding:0 20px}
header{padding-top:22px}
h1{font-size:26px;line-height:1.25;margin:0;overflow-wrap:anywhere}
header p{margin:4px 0 0;color:var(--soft)}
h2{font-size:18px;margin:30px 0 10px}
.phantom{padding:13px 20px;text-align:center;color:#000;border-block:3px solid #000;
background:repeating-linear-gradient(135deg,#ffd400 0 26px,#ffe974 26px 52px);print-color-adjust:exact;
-webkit-print-color-adjust:exact}
.phantom:first-child{position:sticky;top:0;z-index:2}
.phantom:last-child{margin-top:32px}
.phantom strong{font-size:20px;letter-spacing:.12em;margin-right:10px}
.stamp{display:inline-block;font-size:11.5px;line-height:1.35;padding:1px 7px;border:1px solid var(--mark);
border-radius:9px;color:var(--mark);font-weight:500;overflow-wrap:anywhere;vertical-align:middle}
.stamp.none{border-color:var(--warn);color:var(--warn)}
.warn{color:var(--warn);font-weight:600}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(165px,1fr));gap:12px;margin-top:20px}
.tile,figure,table,dl,ul{background:var(--card);border:1px solid var(--line);border-radius:8px}
.tile{padding:12px 14px}
.wide{grid-column:span 2}
.label,.detail{font-size:13px;color:var(--soft)}
.detail.warn{color:var(--warn)}
.value{font-size:22px;font-weight:600;font-variant-numeric:tabular-nums;margin:1px 0 4px}
.value small{font-size:14px;font-weight:400;color:var(--soft)}
.cases,.figures{display:grid;gap:14px}
.cases{grid-template-columns:repeat(auto-fill,minmax(min(100%,520px),1fr))}
.figures{grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr));align-items:start}
figure{margin:0;padding:10px;min-width:0}
figcaption{margin-bottom:8px;overflow-wrap:anywhere}
.case{position:relative}
.case figcaption{padding-right:84px}
.broad,.case:has(:checked){grid-column:1/-1}
.broad .enlarge{display:none}
.case:has(:checked) img{width:100%}
.enlarge{position:absolute;top:10px;right:12px;font-size:13px;color:var(--soft);cursor:pointer}
img{display:block;max-width:100%;height:auto;margin:0 auto;background:#fff;border-radius:4px}
.scroll{overflow-x:auto}
table{border-collapse:separate;border-spacing:0;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;padding-bottom:6px}
th,td{padding:4px 10px;text-align:right;border-top:1px solid var(--line);white-space:nowrap}
thead th{border-top:0;color:var(--soft);font-weight:500;font-size:13px}
tbody th,thead th:nth-child(2){text-align:left;font-weight:500}
td:first-child{color:var(--soft)}
.bar{width:18%;min-width:70px;padding-right:0}
.bar span{display:block;height:10px;border-radius:2px;background:var(--bar);print-color-adjust:exact;
-webkit-print-color-adjust:exact}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0;padding:14px}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
ul{margin:0;padding:12px 14px 12px 32px;overflow-wrap:anywhere}
main{padding-bottom:40px}
@media print{:root{--ink:#000;--soft:#444;--page:#fff;--card:#fff;--line:#bbb;--mark:#0b57a4;--bar:#7db8de;
--warn:#a33b00}
body{font-size:11px}header,main{max-width:none;padding-inline:0}.phantom:first-child{position:static}
.tile,figure,tr,dl{break-inside:avoid}h2{break-after:avoid}.enlarge{display:none}
.tiles{grid-template-columns:repeat(4,1fr)}.value{font-size:16px}.scroll{overflow:visible}
.cases,.figures{grid-template-columns:1fr 1fr}.cases img{max-height:220mm}}
"""
