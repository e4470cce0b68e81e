//! The page around a report: style, banner, tiles and tables. Everything is inline, so that the file
//! can be mailed, archived and opened without a network.

use std::fmt::Write as _;

/// Light and dark from one list of variables; the palette is Okabe and Ito's, which people with any
/// colour vision can tell apart.
const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#1c1e21;--soft:#5b6168;--line:#e0e2e5;
--ok:#00734f;--ok-bg:#e3f4ed;--bad:#b3261e;--bad-bg:#fcebea;
--c1:#0072b2;--c2:#e69f00;--c3:#d55e00;--c4:#009e73;--c5:#a3558b}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e8eaed;--soft:#a0a8b0;
--line:#32383f;--ok:#58d6a9;--ok-bg:#12332a;--bad:#ff8a80;--bad-bg:#3d1c1a;
--c1:#56b4e9;--c2:#f0b429;--c3:#ff7f50;--c4:#2fc79a;--c5:#d18fc0}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
main{max-width:960px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:1.15rem;margin:40px 0 12px}
p.sub{margin:0 0 20px;color:var(--soft);overflow-wrap:anywhere}
.verdict{display:flex;gap:12px;align-items:baseline;padding:14px 18px;border-radius:10px;font-weight:600;border:1px solid}
.verdict.ok{color:var(--ok);background:var(--ok-bg)}.verdict.bad{color:var(--bad);background:var(--bad-bg)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:16px 0 0;padding:0}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.tiles dt{color:var(--soft);font-size:.82rem}
.tiles dd{margin:2px 0 0;font-size:1.45rem;font-weight:650;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.tiles small{display:block;color:var(--soft);font-size:.8rem;font-weight:400;letter-spacing:0}
figure{margin:16px 0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px 8px}
figcaption{font-weight:600;margin-bottom:6px}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:11.5px;font-family:inherit}svg .legend{fill:var(--ink)}
.grid{stroke:var(--line)}.axis{stroke:var(--soft)}
.line{fill:none;stroke-width:2;stroke-linecap:round;stroke-linejoin:round}.key{stroke-width:4}.area{stroke-width:0;fill-opacity:.85}
.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}
.area.c1{fill:var(--c1)}.area.c2{fill:var(--c2)}.area.c3{fill:var(--c3)}.area.c4{fill:var(--c4)}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}
table{border-collapse:collapse;width:100%;font-size:.92rem}
caption{text-align:left;font-weight:600;padding:12px 16px 4px}
th,td{text-align:left;padding:7px 16px;border-top:1px solid var(--line);vertical-align:top}
thead th{border-top:0;color:var(--soft);font-weight:600;font-size:.82rem}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.scroll+.scroll{margin-top:16px}td.wide{min-width:260px;color:var(--bad)}
td.ok{color:var(--ok);font-weight:600}td.bad{color:var(--bad);font-weight:600}
details{margin:12px 0}summary{cursor:pointer;color:var(--soft)}
footer{margin-top:40px;color:var(--soft);font-size:.85rem}
@media print{body{background:#fff}figure,.scroll,.tiles div{break-inside:avoid}}
";

/// A page as it grows.
#[derive(Debug)]
pub(super) struct Page {
    out: String,
}

impl Page {
    pub(super) fn begin(title: &str, sub: &str) -> Self {
        let title = escape(title);
        let mut out = String::with_capacity(64 * 1024);
        let _ = write!(
            out,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <title>{title}</title><style>{STYLE}</style></head><body><main>\
             <h1>{title}</h1><p class=\"sub\">{}</p>",
            escape(sub)
        );
        Self { out }
    }

    /// The verdict, in words and not by colour alone.
    pub(super) fn verdict(&mut self, passed: bool, text: &str) {
        let (class, mark) = if passed { ("ok", "✓") } else { ("bad", "✗") };
        let _ = write!(
            self.out,
            r#"<div class="verdict {class}" role="status"><span aria-hidden="true">{mark}</span><span>{}</span></div>"#,
            escape(text)
        );
    }

    /// Tiles of name, number and a remark.
    pub(super) fn tiles(&mut self, tiles: &[(&str, String, String)]) {
        self.out.push_str("<dl class=\"tiles\">");
        for (name, number, remark) in tiles {
            let _ = write!(
                self.out,
                "<div><dt>{}</dt><dd>{}<small>{}</small></dd></div>",
                escape(name),
                escape(number),
                escape(remark)
            );
        }
        self.out.push_str("</dl>");
    }

    pub(super) fn heading(&mut self, text: &str) {
        let _ = write!(self.out, "<h2>{}</h2>", escape(text));
    }

    /// Markup made by this crate.
    pub(super) fn raw(&mut self, markup: &str) {
        self.out.push_str(markup);
    }

    /// A table; see [`Cell`].
    pub(super) fn table(&mut self, caption: &str, head: &[&str], rows: &[Vec<Cell>]) {
        let _ = write!(
            self.out,
            "<div class=\"scroll\"><table><caption>{}</caption><thead><tr>",
            escape(caption)
        );
        for (place, name) in head.iter().enumerate() {
            let is_number =
                rows.first().and_then(|row| row.get(place)).is_some_and(Cell::is_number);
            let class = if is_number { " class=\"n\"" } else { "" };
            let _ = write!(self.out, "<th scope=\"col\"{class}>{}</th>", escape(name));
        }
        self.out.push_str("</tr></thead><tbody>");
        for row in rows {
            self.out.push_str("<tr>");
            for cell in row {
                cell.write_to(&mut self.out);
            }
            self.out.push_str("</tr>");
        }
        self.out.push_str("</tbody></table></div>");
    }

    /// A table that is closed until asked for: the numbers behind a plot.
    pub(super) fn folded_table(&mut self, summary: &str, head: &[&str], rows: &[Vec<Cell>]) {
        let _ = write!(self.out, "<details><summary>{}</summary>", escape(summary));
        self.table("", head, rows);
        self.out.push_str("</details>");
    }

    pub(super) fn end(mut self) -> String {
        let _ = writeln!(
            self.out,
            "<footer>Made by weir-sim {}. Latencies are in microseconds unless said otherwise.\
             </footer></main></body></html>",
            env!("CARGO_PKG_VERSION")
        );
        self.out
    }
}

/// A table cell.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Text(String),
    Number(String),
    /// A number or mark that is as it must be.
    Good(String),
    /// A number or mark that is not.
    Bad(String),
    /// A sentence about what is wrong.
    Wrong(String),
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn count(number: u64) -> Self {
        Self::Number(crate::numbers::grouped(number))
    }

    /// Zero is good, anything else is bad.
    pub(super) fn must_be_zero(number: u64) -> Self {
        if number == 0 {
            Self::Good("0 ✓".to_owned())
        } else {
            Self::Bad(format!("{} ✗", crate::numbers::grouped(number)))
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Good(_) | Self::Bad(_))
    }

    fn write_to(&self, out: &mut String) {
        let (class, text) = match self {
            Self::Text(text) => ("", text),
            Self::Number(text) => (" class=\"n\"", text),
            Self::Good(text) => (" class=\"n ok\"", text),
            Self::Bad(text) => (" class=\"n bad\"", text),
            Self::Wrong(text) => (" class=\"wide\"", text),
        };
        let _ = write!(out, "<td{class}>{}</td>", escape(text));
    }
}

/// Makes text safe inside HTML: names come from the command line and from Weir.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_become_markup() {
        let mut page = Page::begin("<script>", "a & b");
        page.table("c", &["h"], &[vec![Cell::text("<img src=x onerror='1'>")]]);
        let page = page.end();
        assert!(!page.contains("<script>") && !page.contains("<img"));
        assert!(page.contains("&lt;img src=x onerror=&#39;1&#39;&gt;"));
    }

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere() {
        let page = Page::begin("t", "s").end();
        for outside in ["http://", "https://", "url(", "@import", "<script", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
