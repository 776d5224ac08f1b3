//! The page around the plots.

use std::fmt::Write as _;

use serde_json::Value;

use super::Document;
use super::plots::plots;

/// The whole page: one file, without a script, a font or an image from elsewhere.
pub(super) fn write(documents: &[Document]) -> String {
    let mut page = HEAD.to_owned();
    for document in documents {
        let _ =
            writeln!(page, "<section><h2>{} <small>{}</small></h2>", escape(&document.suite), escape(&document.name));
        page.push_str(&header(&document.value));
        let charts = plots(document);
        if charts.is_empty() {
            page.push_str("<p>There is nothing to plot in it.</p>\n");
        }
        for chart in charts {
            let _ =
                writeln!(page, "<figure><figcaption>{}</figcaption>\n{}</figure>", escape(&chart.title), chart.svg());
        }
        page.push_str("</section>\n");
    }
    page.push_str("</body></html>");
    page
}

/// What it was measured on.
fn header(document: &Value) -> String {
    let host = &document["host"];
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    };
    let command = host["command"]
        .as_array()
        .map_or_else(String::new, |words| words.iter().map(text).collect::<Vec<_>>().join(" "));
    let media = [&document["medium"], &document["device"]["medium"]];
    let disks = document["disks"].as_array().into_iter().flatten().map(|disk| &disk["medium"]);
    let medium = media.into_iter().chain(disks).find(|medium| medium.is_object());
    let mut rows = vec![
        ("machine", format!("{}, Linux {}", text(&host["machine"]), text(&host["kernel"]))),
        ("CPU", format!("{}, governor {}", text(&host["cpu_model"]), text(&host["governor"]))),
        ("time", format!("{}, load average {}", text(&host["time"]), text(&host["load_average"]))),
        ("command", command),
    ];
    if let Some(medium) = medium {
        let part = |name: &str| text(&medium[name]);
        rows.push((
            "disk",
            format!(
                "{} on {}, model {}, scheduler {}, cache {}",
                part("file_system"),
                part("source"),
                part("model"),
                part("scheduler"),
                part("write_cache")
            ),
        ));
    }
    if host["debug_build"] == true {
        rows.push(("warning", "built without optimisation: CPU figures mean nothing".to_owned()));
    }
    if document["interrupted"] == true {
        rows.push(("warning", "the run was interrupted: figures are of what was seen until then".to_owned()));
    }
    for server in document["servers"].as_array().into_iter().flatten() {
        rows.push((
            "server",
            format!("{}: {}; {}", text(&server["name"]), text(&server["version"]), text(&server["durability"])),
        ));
    }
    let mut table = "<table>".to_owned();
    for (name, value) in rows {
        let _ = write!(table, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    table + "</table>\n"
}

/// Text that can stand in markup and in attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>anvil-bench</title>
<meta name=\"viewport\" content=\"width=device-width\">
<style>
body { font: 15px/1.5 sans-serif; max-width: 800px; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
th { text-align: left; padding-right: 1em; vertical-align: top; font-weight: normal; color: #666 }
td { overflow-wrap: anywhere }
figure { margin: 2em 0 }
figcaption { font-weight: bold }
small { color: #666; font-weight: normal }
svg text { font-size: 11px; fill: #222 }
svg .tick, svg .place { text-anchor: end; fill: #555 }
svg .grid { stroke: #ddd }
</style></head><body>
<h1>anvil-bench</h1>
";
