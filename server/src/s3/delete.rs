//! DeleteObject and DeleteObjects.

use anvil_model::access::{Action, Resource};
use anvil_model::limits::PAGE_KEYS_MAX;
use anvil_model::object::{BucketName, Etag, Key, WriteConditions};

use super::error::{Code, S3Error};
use super::route::object_key;
use super::xml::{XmlReader, XmlWriter};
use super::{Answer, Request, S3, conditions, no_content, xml_response};
use crate::auth::Payload;
use crate::http::Incoming;

impl S3 {
    pub(super) async fn delete_object(&self, request: &Request<'_>, bucket: BucketName, key: Key) -> Answer {
        let conditions = conditions::of_delete(request.head)?;
        if conditions.absent {
            return Err(S3Error::header_not_implemented("If-None-Match"));
        }
        self.node.delete_object(request.caller(), bucket, key, conditions).await?;
        Ok(no_content())
    }

    pub(super) async fn delete_objects<I: Incoming>(
        &self,
        request: &Request<'_>,
        bucket: BucketName,
        payload: Payload,
        incoming: &mut I,
    ) -> Answer {
        let document = request.document(payload, incoming, DOCUMENT_BYTES_MAX).await?;
        let Delete { quiet, objects } = Delete::read(&document)?;
        let keys: Vec<Result<Key, S3Error>> =
            objects.iter().map(|object| request.deletable(&bucket, &object.key)).collect();
        let valid = keys.iter().zip(&objects).filter_map(|(key, object)| {
            let conditions = WriteConditions { etag: object.etag.clone(), ..WriteConditions::default() };
            Some((key.as_ref().ok()?.clone(), conditions))
        });
        let mut outcomes = self.node.delete_objects(request.caller(), bucket, valid.collect()).await?.into_iter();
        let outcomes = keys.into_iter().map(|key| {
            key.and_then(|_| {
                let outcome = outcomes.next().ok_or_else(|| S3Error::new(Code::INTERNAL_ERROR))?;
                outcome.map_err(S3Error::from)
            })
        });
        Ok(xml_response(result_xml(quiet, objects.iter().zip(outcomes))))
    }
}

impl Request<'_> {
    /// The key of this text, which the request may delete.
    fn deletable(&self, bucket: &BucketName, key: &str) -> Result<Key, S3Error> {
        let key = object_key(key.to_owned().into_bytes())?;
        let resource = Resource::Object { bucket: bucket.as_str(), key: key.as_str() };
        let may = self.access.may(Action::ObjectDelete, resource);
        if may { Ok(key) } else { Err(S3Error::new(Code::ACCESS_DENIED)) }
    }
}

/// The document of a DeleteObjects.
#[derive(Debug, PartialEq, Eq)]
struct Delete {
    quiet: bool,
    objects: Vec<Wanted>,
}

/// Reads whatever comes, see [`super::fuzz`].
pub(super) fn fuzz(document: &[u8]) {
    if let Ok(delete) = Delete::read(document) {
        assert!((1..=PAGE_KEYS_MAX).contains(&delete.objects.len()));
    }
}

/// One object to be deleted.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    key: String,
    /// Its null version was named.
    null_version: bool,
    /// The tag that it must have; `*` is any.
    etag: Option<Etag>,
}

impl Delete {
    fn read(document: &[u8]) -> Result<Self, S3Error> {
        let mut xml = XmlReader::open(document, "Delete")?;
        let mut delete = Self { quiet: false, objects: Vec::new() };
        while let Some(name) = xml.child()? {
            match name.as_str() {
                "Object" if delete.objects.len() < PAGE_KEYS_MAX => delete.objects.push(read_object(&mut xml)?),
                "Quiet" => delete.quiet = xml.text()?.trim().eq_ignore_ascii_case("true"),
                _ => return Err(S3Error::new(Code::MALFORMED_XML)),
            }
        }
        xml.finish()?;
        if delete.objects.is_empty() { Err(S3Error::new(Code::MALFORMED_XML)) } else { Ok(delete) }
    }
}

fn read_object(xml: &mut XmlReader<'_>) -> Result<Wanted, S3Error> {
    let (mut key, mut null_version, mut etag) = (None, false, None);
    while let Some(name) = xml.child()? {
        match name.as_str() {
            "Key" if key.is_none() => key = Some(xml.text()?),
            "VersionId" => {
                let version = xml.text()?;
                if version != "null" {
                    return Err(S3Error::argument("VersionId", &version, "Invalid version id specified"));
                }
                null_version = true;
            }
            "ETag" if etag.is_none() => etag = Some(Etag(conditions::unquote(&xml.text()?).to_owned())),
            // Conditions of directory buckets: not passed over, and not there.
            "LastModifiedTime" | "Size" => return Err(S3Error::new(Code::NOT_IMPLEMENTED)),
            _ => return Err(S3Error::new(Code::MALFORMED_XML)),
        }
    }
    let key = key.filter(|key| !key.is_empty()).ok_or_else(|| S3Error::new(Code::MALFORMED_XML))?;
    Ok(Wanted { key, null_version, etag })
}

fn result_xml<'a>(quiet: bool, outcomes: impl Iterator<Item = (&'a Wanted, Result<(), S3Error>)>) -> Vec<u8> {
    XmlWriter::document("DeleteResult", |xml| {
        for (Wanted { key, null_version, .. }, outcome) in outcomes {
            let write_name = |xml: &mut XmlWriter| {
                xml.text("Key", key);
                xml.optional("VersionId", null_version.then_some("null"));
            };
            match outcome {
                Ok(()) if quiet => {}
                Ok(()) => xml.element("Deleted", write_name),
                Err(error) => xml.element("Error", |xml| {
                    write_name(xml);
                    xml.text("Code", error.code());
                    xml.text("Message", error.message());
                }),
            }
        }
    })
}

/// 1,000 keys of 1,024 bytes, each byte written as a reference at worst, would be 6 MiB; no client writes such.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<(bool, Vec<String>), &'static str> {
        let names = |objects: Vec<Wanted>| objects.into_iter().map(|object| object.key).collect();
        Delete::read(text.as_bytes()).map(|d| (d.quiet, names(d.objects))).map_err(|error| error.code())
    }

    #[test]
    fn an_object_may_be_named_with_its_version_and_its_tag() {
        let text = "<Delete><Object><Key>a</Key><VersionId>null</VersionId><ETag>\"t\"</ETag></Object></Delete>";
        let expected = Wanted { key: "a".to_owned(), null_version: true, etag: Some(Etag("t".to_owned())) };
        assert_eq!(Delete::read(text.as_bytes()).unwrap().objects, [expected]);
    }

    #[test]
    fn the_document_of_aws_is_read() {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n  <Object><Key>a/b &amp; c</Key></Object>\n  \
            <Object><Key> d </Key><VersionId>null</VersionId></Object>\n  <Quiet>true</Quiet>\n</Delete>";
        assert_eq!(read(text), Ok((true, vec!["a/b & c".to_owned(), " d ".to_owned()])));
        let interleaved =
            "<Delete><Object><Key>a</Key></Object><Quiet>false</Quiet><Object><Key>b</Key></Object></Delete>";
        assert_eq!(read(interleaved), Ok((false, vec!["a".to_owned(), "b".to_owned()])));
    }

    #[test]
    fn everything_else_is_refused_as_a_whole() {
        for (text, code) in [
            ("", "MalformedXML"),
            ("<Delete/>", "MalformedXML"),
            ("<Delete><Object/></Delete>", "MalformedXML"),
            ("<Delete><Object><Key/></Object></Delete>", "MalformedXML"),
            ("<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>", "MalformedXML"),
            ("<Delete><Thing/></Delete>", "MalformedXML"),
            ("<Delete><Object><Key>a</Key><VersionId>v1</VersionId></Object></Delete>", "InvalidArgument"),
            ("<Delete><Object><Key>a</Key><Size>1</Size></Object></Delete>", "NotImplemented"),
        ] {
            assert_eq!(read(text), Err(code), "{text}");
        }
        let objects = |count| format!("<Delete>{}</Delete>", "<Object><Key>a</Key></Object>".repeat(count));
        assert!(read(&objects(1000)).is_ok());
        assert_eq!(read(&objects(1001)), Err("MalformedXML"));
    }

    proptest! {
        #[test]
        fn no_document_breaks_the_reader(inner in "(<[A-Za-z]{0,8}/?>|</?(Object|Key|Quiet|VersionId)>|[0-9a-z&;]{0,4}){0,12}") {
            let _ = read(&inner);
            let _ = read(&format!("<Delete>{inner}</Delete>"));
        }
    }

    #[test]
    fn the_result_names_each_key() {
        let wanted = |key: &str, null_version| Wanted { key: key.to_owned(), null_version, etag: None };
        let objects = [wanted("a&b", true), wanted("c", false)];
        let outcomes = || objects.iter().zip([Ok(()), Err(S3Error::new(Code::ACCESS_DENIED))]);
        let text = |quiet| String::from_utf8(result_xml(quiet, outcomes())).unwrap();
        let error =
            "<Error><Key>c</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error></DeleteResult>";
        assert!(
            text(false).ends_with(&format!("<Deleted><Key>a&amp;b</Key><VersionId>null</VersionId></Deleted>{error}")),
            "{}",
            text(false)
        );
        assert!(text(true).ends_with(&format!("2006-03-01/\">{error}")), "{}", text(true));
    }
}
