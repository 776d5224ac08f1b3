//! GetObjectAttributes: what is known of an object, without its bytes.

use anvil_model::limits::PAGE_KEYS_MAX;
use anvil_model::object::{BucketName, Checksum, Key};
use anvil_node::metadata::query::FoundParts;

use super::conditions::{self, Verdict};
use super::error::S3Error;
use super::headers::single;
use super::xml::XmlWriter;
use super::{Answer, Request, S3, checksum, date, xml_response};
use crate::http::Head;

impl S3 {
    pub(super) async fn get_object_attributes(&self, request: &Request<'_>, bucket: BucketName, key: Key) -> Answer {
        let wanted = Wanted::read(request.head)?;
        let found = self.node.object_parts(request.caller(), bucket, key, wanted.after, wanted.parts_asked()).await?;
        let version = &found.version;
        match conditions::judge(request.head, &version.etag, version.last_modified)? {
            Verdict::Failed(condition) => return Err(conditions::failed(condition)),
            Verdict::NotModified => return Err(conditions::failed("If-None-Match")),
            Verdict::Proceed => {}
        }
        let mut response = xml_response(wanted.xml(&found));
        response.headers.push(("Last-Modified".into(), date::http(version.last_modified)));
        Ok(response)
    }
}

/// Which attributes, and which page of the parts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    etag: bool,
    checksum: bool,
    parts: bool,
    storage_class: bool,
    size: bool,
    after: u16,
    max: usize,
}

impl Wanted {
    fn read(head: &Head) -> Result<Self, S3Error> {
        let names = single(head, ATTRIBUTES)?.unwrap_or_default();
        let mut wanted = Self { max: PAGE_KEYS_MAX, ..Self::default() };
        for name in names.split(',').map(str::trim) {
            match name {
                "ETag" => wanted.etag = true,
                "Checksum" => wanted.checksum = true,
                "ObjectParts" => wanted.parts = true,
                "StorageClass" => wanted.storage_class = true,
                "ObjectSize" => wanted.size = true,
                _ => return Err(S3Error::argument(ATTRIBUTES, name, "Invalid attribute name specified.")),
            }
        }
        if let Some(max) = number(head, "x-amz-max-parts")? {
            wanted.max = usize::try_from(max).unwrap_or(usize::MAX).min(PAGE_KEYS_MAX);
        }
        if let Some(after) = number(head, "x-amz-part-number-marker")? {
            wanted.after = u16::try_from(after).unwrap_or(u16::MAX);
        }
        Ok(wanted)
    }

    fn parts_asked(&self) -> usize {
        if self.parts { self.max } else { 0 }
    }

    fn xml(&self, found: &FoundParts) -> Vec<u8> {
        let version = &found.version;
        XmlWriter::document("GetObjectAttributesResponse", |xml| {
            if self.etag {
                xml.text("ETag", &version.etag.0);
            }
            if self.checksum {
                xml.element("Checksum", |xml| {
                    write_checksum(xml, &version.checksum, version.parts);
                    xml.text("ChecksumType", checksum::type_name(version.checksum.of));
                });
            }
            if let Some(count) = version.parts.filter(|_| self.parts) {
                xml.element("ObjectParts", |xml| self.write_parts(xml, count, found));
            }
            if self.storage_class {
                xml.text("StorageClass", version.storage_class.as_str());
            }
            if self.size {
                xml.value("ObjectSize", version.size);
            }
        })
    }

    fn write_parts(&self, xml: &mut XmlWriter, count: u16, found: &FoundParts) {
        xml.value("PartsCount", count);
        xml.value("PartNumberMarker", self.after);
        xml.value("NextPartNumberMarker", found.parts.last().map_or(self.after, |part| part.number));
        xml.value("MaxParts", self.max);
        xml.value("IsTruncated", found.more && !found.parts.is_empty());
        for part in &found.parts {
            xml.element("Part", |xml| {
                xml.value("PartNumber", part.number);
                xml.value("Size", part.size);
                write_checksum(xml, &part.checksum, None);
            });
        }
    }
}

fn write_checksum(xml: &mut XmlWriter, value: &Checksum, parts: Option<u16>) {
    xml.text(checksum::element_name(value.algorithm), &checksum::text(value, parts));
}

fn number(head: &Head, name: &'static str) -> Result<Option<u32>, S3Error> {
    let Some(text) = single(head, name)? else { return Ok(None) };
    let number = text.parse::<u32>().ok().filter(|number| *number <= i32::MAX.unsigned_abs());
    let message = || format!("Argument {name} must be an integer between 0 and {}", i32::MAX);
    number.map(Some).ok_or_else(|| S3Error::argument(name, text, message()))
}

const ATTRIBUTES: &str = "x-amz-object-attributes";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::tests::head;

    #[test]
    fn attributes_are_named_one_by_one() {
        let read = |headers: &[(&str, &str)]| Wanted::read(&head("GET", "/abc/k?attributes", headers));
        let wanted = read(&[(ATTRIBUTES, "ETag,ObjectSize, ObjectParts"), ("x-amz-max-parts", "5000")]).unwrap();
        let expected = Wanted { etag: true, size: true, parts: true, max: 1000, ..Wanted::default() };
        assert_eq!(wanted, expected);
        for bad in [
            &[][..],
            &[(ATTRIBUTES, "")],
            &[(ATTRIBUTES, "ETag,Colour")],
            &[(ATTRIBUTES, "ETag"), ("x-amz-max-parts", "-1")],
            &[(ATTRIBUTES, "ETag"), ("x-amz-part-number-marker", "x")],
        ] {
            assert_eq!(read(bad).unwrap_err().code(), "InvalidArgument", "{bad:?}");
        }
    }
}
