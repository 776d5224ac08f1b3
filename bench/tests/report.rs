//! Goal: what suites print becomes a page that can be read anywhere. Method: the real binary, from a measurement to the page.

use std::fs;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_anvil-bench")).args(arguments).output().unwrap()
}

#[test]
fn a_page_has_plots_and_needs_nothing_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let measured = [
        ("digest.json", vec!["digest", "--algorithm", "md5", "--lanes", "1,4", "--duration", "2s", "--json"]),
        ("ec.json", vec!["ec", "--profile", "2+1", "--cell", "4KiB", "--duration", "2s", "--json"]),
        ("net.json", vec!["net", "--runtime", "threads", "--rounds", "1", "--duration", "2s", "--json"]),
    ];
    let mut files = Vec::new();
    for (name, arguments) in measured {
        let output = bench(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = folder.path().join(name);
        fs::write(&path, output.stdout).unwrap();
        files.push(path.to_str().unwrap().to_owned());
    }
    let page = folder.path().join("page.html");
    let arguments =
        [vec!["report", "--output", page.to_str().unwrap()], files.iter().map(String::as_str).collect()].concat();
    let output = bench(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(page).unwrap();
    for needed in ["md5 over streams", "encode, cells of 4 KiB", "CPU of a request", "<svg", "<polyline", "machine"] {
        assert!(text.contains(needed), "{needed}");
    }
    for foreign in ["http:", "https:", "<script", "src=", "url(", "@import"] {
        assert!(!text.contains(foreign), "{foreign}");
    }
    let count = |what: &str| text.matches(what).count();
    for element in ["svg", "section", "figure", "table", "text"] {
        let opened = count(&format!("<{element}>")) + count(&format!("<{element} "));
        assert_eq!(opened, count(&format!("</{element}>")), "{element} is closed as often as it is opened");
    }
}

#[test]
fn what_is_no_document_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    for (content, says) in
        [("{}", "is no document that"), ("x", "is no JSON document"), ("{\"suite\":\"s3\"}", "is no document that")]
    {
        let path = folder.path().join("file");
        fs::write(&path, content).unwrap();
        let output = bench(&["report", path.to_str().unwrap()]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{content}");
        assert!(text.contains(says) && text.lines().count() == 1, "{content}: {text}");
    }
}
