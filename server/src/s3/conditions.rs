//! Conditions on reads (RFC 9110, 13) and on writes.

use anvil_model::object::{Etag, WriteConditions};
use anvil_model::time::WallTime;
use anvil_node::metadata::Refusal;

use super::date;
use super::error::{Code, S3Error};
use super::headers::single;
use crate::http::Head;

/// What the conditions of a read make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send it.
    Proceed,
    /// The client has it: 304.
    NotModified,
    /// The named condition does not hold: 412.
    Failed(&'static str),
}

/// What a copy demands of its source.
#[derive(Debug, Default)]
pub(crate) struct SourceConditions<'a> {
    matches: Option<&'a str>,
    matches_not: Option<&'a str>,
    modified_since: Option<i64>,
    unmodified_since: Option<i64>,
}

impl<'a> SourceConditions<'a> {
    /// Reads `x-amz-copy-source-if-*`.
    pub(crate) fn read(head: &'a Head) -> Result<Self, S3Error> {
        let since = |name| Ok::<_, S3Error>(single(head, name)?.and_then(date::parse_http));
        Ok(Self {
            matches: single(head, "x-amz-copy-source-if-match")?,
            matches_not: single(head, "x-amz-copy-source-if-none-match")?,
            modified_since: since("x-amz-copy-source-if-modified-since")?,
            unmodified_since: since("x-amz-copy-source-if-unmodified-since")?,
        })
    }

    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        self.matches.or(self.matches_not).is_some() || self.modified_since.or(self.unmodified_since).is_some()
    }

    /// In the order of reads; whatever fails is 412, as nothing is read.
    pub(crate) fn check(&self, etag: &Etag, last_modified: WallTime) -> Result<(), Refusal> {
        let modified = date::unix_seconds(last_modified);
        let as_it_was = match (self.matches, self.unmodified_since) {
            (Some(tags), _) => matches_any(tags, etag),
            (None, Some(date)) => modified <= date,
            (None, None) => true,
        };
        let changed = match (self.matches_not, self.modified_since) {
            (Some(tags), _) => !matches_any(tags, etag),
            (None, Some(date)) => modified > date,
            (None, None) => true,
        };
        if as_it_was && changed { Ok(()) } else { Err(Refusal::PreconditionFailed) }
    }
}

/// Judges a read of the version with this tag and time, in the order that RFC 9110 (13.2.2) demands. A date that
/// cannot be read is no condition.
pub(crate) fn judge(head: &Head, etag: &Etag, last_modified: WallTime) -> Result<Verdict, S3Error> {
    let modified = date::unix_seconds(last_modified);
    let since = |name| Ok::<_, S3Error>(single(head, name)?.and_then(date::parse_http));
    if let Some(tags) = single(head, "if-match")? {
        if !matches_any(tags, etag) {
            return Ok(Verdict::Failed("If-Match"));
        }
    } else if since("if-unmodified-since")?.is_some_and(|date| modified > date) {
        return Ok(Verdict::Failed("If-Unmodified-Since"));
    }
    if let Some(tags) = single(head, "if-none-match")? {
        if matches_any(tags, etag) {
            return Ok(Verdict::NotModified);
        }
    } else if since("if-modified-since")?.is_some_and(|date| modified <= date) {
        return Ok(Verdict::NotModified);
    }
    Ok(Verdict::Proceed)
}

/// Whether a `Range` counts: there is no `If-Range`, or it names this very version (RFC 9110, 13.1.5).
pub(crate) fn range_applies(head: &Head, etag: &Etag, last_modified: WallTime) -> Result<bool, S3Error> {
    let Some(validator) = single(head, "if-range")? else { return Ok(true) };
    Ok(match date::parse_http(validator) {
        Some(date) => date == date::unix_seconds(last_modified),
        None => validator == format!("\"{etag}\""),
    })
}

/// Reads the conditions of a write.
///
/// # Errors
/// `NotImplemented` for conditions that writes do not know, as AWS answers them.
pub(crate) fn of_write(head: &Head) -> Result<WriteConditions, S3Error> {
    for name in ["if-modified-since", "if-unmodified-since", "if-range"] {
        if head.headers.iter().any(|(n, _)| n == name) {
            return Err(S3Error::header_not_implemented(name));
        }
    }
    let absent = match single(head, "if-none-match")? {
        None => false,
        Some("*") => true,
        Some(_) => return Err(S3Error::header_not_implemented("If-None-Match")),
    };
    let etag = match single(head, "if-match")? {
        None => None,
        Some(text) if text == "*" || text.contains(',') => return Err(S3Error::header_not_implemented("If-Match")),
        Some(text) => Some(Etag(unquote(text).to_owned())),
    };
    Ok(WriteConditions { absent, etag, ..WriteConditions::default() })
}

/// Reads the conditions of a deletion, which beside a tag also takes `*`: whatever is there.
///
/// # Errors
/// As [`of_write`].
pub(crate) fn of_delete(head: &Head) -> Result<WriteConditions, S3Error> {
    match single(head, "if-match")? {
        Some("*") => Ok(WriteConditions { etag: Some(Etag("*".to_owned())), ..WriteConditions::default() }),
        _ => of_write(head),
    }
}

/// Refuses conditions on a write that takes none: passed over, they would protect nothing.
///
/// # Errors
/// `NotImplemented`, naming the header.
pub(crate) fn refuse(head: &Head) -> Result<(), S3Error> {
    const CONDITIONS: [&str; 5] = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"];
    match head.headers.iter().find(|(name, _)| CONDITIONS.contains(&name.as_str())) {
        Some((name, _)) => Err(S3Error::header_not_implemented(name)),
        None => Ok(()),
    }
}

/// `PreconditionFailed` that names the condition.
pub(crate) fn failed(condition: &str) -> S3Error {
    S3Error::new(Code::PRECONDITION_FAILED).with("Condition", condition.to_owned())
}

/// A tag without the quotes that it may have.
pub(crate) fn unquote(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

/// Whether a list of tags, or `*`, names this one. Weak tags and tags without quotes count too, as AWS takes them.
fn matches_any(tags: &str, etag: &Etag) -> bool {
    tags.trim() == "*" || tags.split(',').any(|tag| unquote(tag.trim().trim_start_matches("W/")) == etag.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::tests::head;
    use proptest::prelude::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const TIME: WallTime = WallTime { unix_ms: 784_111_777_500 };

    fn check(headers: &[(&str, &str)], expected: Verdict) {
        let verdict = judge(&head("GET", "/abc/k", headers), &Etag("tag".to_owned()), TIME).unwrap();
        assert_eq!(verdict, expected, "{headers:?}");
    }

    #[test]
    fn conditional_reads_follow_the_order_of_rfc_9110() {
        use Verdict::{Failed, NotModified, Proceed};
        check(&[], Proceed);
        check(&[("if-match", "\"tag\"")], Proceed);
        check(&[("if-match", "tag")], Proceed);
        check(&[("if-match", "*")], Proceed);
        check(&[("if-match", "\"other\", \"tag\"")], Proceed);
        check(&[("if-match", "\"other\"")], Failed("If-Match"));
        check(&[("if-none-match", "\"tag\"")], NotModified);
        check(&[("if-none-match", "W/\"tag\"")], NotModified);
        check(&[("if-none-match", "*")], NotModified);
        check(&[("if-none-match", "\"other\"")], Proceed);
        check(&[("if-modified-since", BEFORE)], Proceed);
        check(&[("if-modified-since", SAME)], NotModified);
        check(&[("if-unmodified-since", BEFORE)], Failed("If-Unmodified-Since"));
        check(&[("if-unmodified-since", SAME)], Proceed);
        check(&[("if-modified-since", "nonsense")], Proceed);
        check(&[("if-unmodified-since", "nonsense")], Proceed);
        check(&[("if-match", "\"tag\""), ("if-unmodified-since", BEFORE)], Proceed);
        check(&[("if-none-match", "\"other\""), ("if-modified-since", SAME)], Proceed);
        check(&[("if-match", "\"other\""), ("if-none-match", "\"tag\"")], Failed("If-Match"));
    }

    proptest! {
        #[test]
        fn no_value_breaks_a_condition(value in "\\PC*|[W/\"*, a-z]{0,20}") {
            for name in ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"] {
                let head = head("GET", "/abc/k", &[(name, &value)]);
                let _ = judge(&head, &Etag("tag".to_owned()), TIME);
                let _ = range_applies(&head, &Etag("tag".to_owned()), TIME);
                let _ = of_write(&head);
            }
        }
    }

    #[test]
    fn a_source_is_held_to_all_that_is_demanded_of_it() {
        let holds = |headers: &[(&str, &str)]| {
            let headers: Vec<(String, &str)> =
                headers.iter().map(|(name, value)| (format!("x-amz-copy-source-{name}"), *value)).collect();
            let borrowed: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let head = head("PUT", "/abc/k", &borrowed);
            let conditions = SourceConditions::read(&head).unwrap();
            assert_eq!(conditions.any(), !headers.is_empty());
            conditions.check(&Etag("tag".to_owned()), TIME).is_ok()
        };
        assert!(holds(&[]));
        assert!(holds(&[("if-match", "\"tag\"")]) && !holds(&[("if-match", "\"other\"")]));
        assert!(!holds(&[("if-none-match", "\"tag\"")]) && holds(&[("if-none-match", "\"other\"")]));
        assert!(!holds(&[("if-modified-since", SAME)]) && holds(&[("if-modified-since", BEFORE)]));
        assert!(holds(&[("if-unmodified-since", SAME)]) && !holds(&[("if-unmodified-since", BEFORE)]));
        assert!(holds(&[("if-match", "\"tag\""), ("if-unmodified-since", BEFORE)]), "the tag decides");
        assert!(!holds(&[("if-none-match", "\"tag\""), ("if-modified-since", BEFORE)]), "the tag decides");
    }

    #[test]
    fn if_range_must_name_this_very_version() {
        let applies = |validator: &str| {
            range_applies(&head("GET", "/abc/k", &[("if-range", validator)]), &Etag("tag".to_owned()), TIME).unwrap()
        };
        assert!(applies("\"tag\"") && applies(SAME));
        assert!(!applies("\"other\"") && !applies("W/\"tag\"") && !applies(BEFORE));
    }

    #[test]
    fn writes_take_only_the_conditions_that_aws_takes() {
        let read = |headers: &[(&str, &str)]| of_write(&head("PUT", "/abc/k", headers));
        assert_eq!(read(&[]).unwrap(), WriteConditions::default());
        assert!(read(&[("if-none-match", "*")]).unwrap().absent);
        assert_eq!(read(&[("if-match", "\"tag\"")]).unwrap().etag, Some(Etag("tag".to_owned())));
        for (name, value) in [
            ("if-none-match", "\"tag\""),
            ("if-match", "*"),
            ("if-modified-since", SAME),
            ("if-unmodified-since", SAME),
        ] {
            assert_eq!(read(&[(name, value)]).unwrap_err().code(), "NotImplemented", "{name}");
        }
        assert!(refuse(&head("PUT", "/abc", &[("content-type", "a")])).is_ok());
        assert_eq!(refuse(&head("PUT", "/abc", &[("if-match", "a")])).unwrap_err().code(), "NotImplemented");
        assert_eq!(read(&[("if-match", "a"), ("if-match", "b")]).unwrap_err().code(), "InvalidArgument");
        let any = of_delete(&head("DELETE", "/abc/k", &[("if-match", "*")])).unwrap();
        assert_eq!(any, WriteConditions { etag: Some(Etag("*".to_owned())), ..WriteConditions::default() });
    }
}
