//! ListObjects and ListObjectsV2.

use anvil_model::limits::{KEY_BYTES_MAX, PAGE_KEYS_MAX};
use anvil_model::object::BucketName;
use anvil_node::list::{After, Entry, ListObjects, Page};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::checksum;
use super::encoding::Encoding;
use super::error::S3Error;
use super::query::Query;
use super::xml::XmlWriter;
use super::{Answer, Request, S3, date, owner_id, xml_response};

impl S3 {
    pub(super) async fn list_objects(&self, request: &Request<'_>, bucket: BucketName) -> Answer {
        self.list(request, bucket, Listing::read_v1(&request.query)?).await
    }

    pub(super) async fn list_objects_v2(&self, request: &Request<'_>, bucket: BucketName) -> Answer {
        self.list(request, bucket, Listing::read_v2(&request.query)?).await
    }

    async fn list(&self, request: &Request<'_>, bucket: BucketName, listing: Listing) -> Answer {
        let page = self.node.list_objects(request.caller(), bucket.clone(), listing.wanted()).await?;
        let mut response = xml_response(listing.xml(&bucket, &page, &owner_id(request.caller())));
        response.headers.push(("x-amz-bucket-region".into(), self.node.region().to_owned()));
        Ok(response)
    }
}

/// A listing as it was asked for, with what the answer repeats of it.
#[derive(Debug)]
struct Listing {
    prefix: String,
    delimiter: String,
    max: usize,
    encoding: Encoding,
    version: Version,
}

#[derive(Debug)]
enum Version {
    V1 { marker: String },
    V2 { token: Option<(String, Vec<u8>)>, start_after: String, owner: bool },
}

impl Listing {
    fn read_v1(query: &Query) -> Result<Self, S3Error> {
        let marker = query.value("marker").unwrap_or_default().to_owned();
        Self::read(query, Version::V1 { marker })
    }

    fn read_v2(query: &Query) -> Result<Self, S3Error> {
        let list_type = query.value("list-type").unwrap_or_default();
        if list_type != "2" {
            return Err(S3Error::argument("list-type", list_type, "Invalid List Type specified in Request"));
        }
        let token =
            query.value("continuation-token").map(|text| Ok::<_, S3Error>((text.to_owned(), read_token(text)?)));
        let version = Version::V2 {
            token: token.transpose()?,
            start_after: query.value("start-after").unwrap_or_default().to_owned(),
            owner: query.value("fetch-owner").is_some_and(|value| value.eq_ignore_ascii_case("true")),
        };
        Self::read(query, version)
    }

    fn read(query: &Query, version: Version) -> Result<Self, S3Error> {
        Ok(Self {
            prefix: query.value("prefix").unwrap_or_default().to_owned(),
            delimiter: query.value("delimiter").unwrap_or_default().to_owned(),
            max: query.count("max-keys", 0, PAGE_KEYS_MAX)?,
            encoding: Encoding::read(query)?,
            version,
        })
    }

    /// The page to ask the node for. A token is further on than the `start-after` that began the listing.
    fn wanted(&self) -> ListObjects {
        let position = match &self.version {
            Version::V1 { marker } => marker.clone().into_bytes(),
            Version::V2 { token: Some((_, position)), .. } => position.clone(),
            Version::V2 { token: None, start_after, .. } => start_after.clone().into_bytes(),
        };
        ListObjects {
            prefix: self.prefix.clone().into_bytes(),
            delimiter: self.delimiter.clone().into_bytes(),
            after: if position.is_empty() { After::Start } else { After::Key(position) },
            max: self.max,
        }
    }

    fn xml(&self, bucket: &BucketName, page: &Page, owner: &str) -> Vec<u8> {
        let bytes = 1024 + page.entries.len() * ENTRY_BYTES;
        XmlWriter::long_document("ListBucketResult", bytes, |xml| {
            xml.text("Name", bucket.as_str());
            xml.text("Prefix", &self.encoding.apply(&self.prefix));
            let owner = match &self.version {
                Version::V1 { marker } => {
                    xml.text("Marker", &self.encoding.apply(marker));
                    let next = page.next.as_deref().filter(|_| !self.delimiter.is_empty());
                    xml.optional("NextMarker", next.map(|next| self.encoding.apply_bytes(next)).as_deref());
                    Some(owner)
                }
                Version::V2 { token, start_after, owner: wanted } => {
                    xml.optional("ContinuationToken", token.as_ref().map(|(text, _)| text.as_str()));
                    xml.optional("NextContinuationToken", page.next.as_deref().map(write_token).as_deref());
                    if !start_after.is_empty() {
                        xml.text("StartAfter", &self.encoding.apply(start_after));
                    }
                    xml.value("KeyCount", page.entries.len());
                    Some(owner).filter(|_| *wanted)
                }
            };
            xml.value("MaxKeys", self.max);
            if !self.delimiter.is_empty() {
                xml.text("Delimiter", &self.encoding.apply(&self.delimiter));
            }
            self.encoding.write(xml);
            xml.value("IsTruncated", page.next.is_some());
            for entry in &page.entries {
                self.write_object(xml, entry, owner);
            }
            for entry in &page.entries {
                if let Entry::CommonPrefix(prefix) = entry {
                    xml.element("CommonPrefixes", |xml| xml.text("Prefix", &self.encoding.apply_bytes(prefix)));
                }
            }
        })
    }

    fn write_object(&self, xml: &mut XmlWriter, entry: &Entry, owner: Option<&str>) {
        let Entry::Object { key, etag, checksum, size, last_modified, storage_class } = entry else { return };
        xml.element("Contents", |xml| {
            xml.text("Key", &self.encoding.apply(key));
            xml.text("LastModified", &date::iso(*last_modified));
            xml.text("ETag", &format!("\"{etag}\""));
            xml.text("ChecksumAlgorithm", checksum.algorithm.name());
            xml.text("ChecksumType", checksum::type_name(checksum.of));
            xml.value("Size", size);
            if let Some(owner) = owner {
                xml.element("Owner", |xml| xml.text("ID", owner));
            }
            xml.text("StorageClass", storage_class.as_str());
        });
    }
}

/// A continuation token: its form, then the position. Only the server that wrote it reads it.
fn write_token(position: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(1 + position.len());
    bytes.push(TOKEN_FORM);
    bytes.extend_from_slice(position);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_token(text: &str) -> Result<Vec<u8>, S3Error> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() <= 1 + KEY_BYTES_MAX);
    match bytes.as_deref() {
        Some([TOKEN_FORM, position @ ..]) if !position.is_empty() => Ok(position.to_vec()),
        _ => Err(S3Error::argument("continuation-token", text, "The continuation token provided is incorrect")),
    }
}

/// An entry of a key that is not long.
const ENTRY_BYTES: usize = 384;
/// Lets the tokens of a later release differ from these.
const TOKEN_FORM: u8 = 1;

#[cfg(test)]
mod tests {
    use anvil_model::object::{Checksum, ChecksumAlgorithm, ChecksumType, Etag};
    use anvil_model::time::WallTime;
    use proptest::prelude::*;

    use anvil_node::metadata::rows::StorageClass;

    use super::*;

    fn listing(query: &str) -> Result<Listing, S3Error> {
        let query = Query::read(Some(query))?;
        if query.has("list-type") { Listing::read_v2(&query) } else { Listing::read_v1(&query) }
    }

    fn page(next: Option<&str>) -> Page {
        Page {
            entries: vec![
                Entry::Object {
                    key: "my image&1.jpg".to_owned(),
                    etag: Etag("fba9dede5f27731c9771645a39863328".to_owned()),
                    checksum: Checksum {
                        algorithm: ChecksumAlgorithm::Crc64Nvme,
                        of: ChecksumType::FullObject,
                        value: vec![0; 8],
                    },
                    size: 434_234,
                    last_modified: WallTime { unix_ms: 1_255_369_830_123 },
                    storage_class: StorageClass::Standard,
                },
                Entry::CommonPrefix("photos é/".as_bytes().to_vec()),
            ],
            next: next.map(|text| text.as_bytes().to_vec()),
        }
    }

    fn check(query: &str, next: Option<&str>, expected: &str) {
        let bucket = BucketName::new("bucket").unwrap();
        let text = String::from_utf8(listing(query).unwrap().xml(&bucket, &page(next), "75aa57f09aa0")).unwrap();
        let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                    <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bucket</Name>";
        assert_eq!(text.strip_prefix(head).unwrap(), format!("{expected}</ListBucketResult>"), "{query}");
    }

    const CONTENTS: &str = "<Contents><Key>my image&amp;1.jpg</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>\
        <ETag>&quot;fba9dede5f27731c9771645a39863328&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>\
        <ChecksumType>FULL_OBJECT</ChecksumType><Size>434234</Size>";
    const OWNER: &str = "<Owner><ID>75aa57f09aa0</ID></Owner>";
    const REST: &str = "<StorageClass>STANDARD</StorageClass></Contents>\
        <CommonPrefixes><Prefix>photos é/</Prefix></CommonPrefixes>";

    #[test]
    fn a_listing_is_the_document_of_aws() {
        let next = write_token(b"photos \xc3\xa9/");
        check(
            "list-type=2&prefix=p&delimiter=/&start-after=a",
            Some("photos é/"),
            &format!(
                "<Prefix>p</Prefix><NextContinuationToken>{next}</NextContinuationToken><StartAfter>a</StartAfter>\
                 <KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>\
                 {CONTENTS}{REST}"
            ),
        );
        check(
            &format!("list-type=2&fetch-owner=true&max-keys=2&continuation-token={next}"),
            None,
            &format!(
                "<Prefix></Prefix><ContinuationToken>{next}</ContinuationToken><KeyCount>2</KeyCount>\
                 <MaxKeys>2</MaxKeys><IsTruncated>false</IsTruncated>{CONTENTS}{OWNER}{REST}"
            ),
        );
    }

    #[test]
    fn the_first_version_names_its_next_marker_only_with_a_delimiter() {
        check(
            "marker=a&delimiter=/",
            Some("photos é/"),
            &format!(
                "<Prefix></Prefix><Marker>a</Marker><NextMarker>photos é/</NextMarker><MaxKeys>1000</MaxKeys>\
                 <Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>{CONTENTS}{OWNER}{REST}"
            ),
        );
        check(
            "",
            Some("photos é/"),
            &format!(
                "<Prefix></Prefix><Marker></Marker><MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated>\
                 {CONTENTS}{OWNER}{REST}"
            ),
        );
    }

    #[test]
    fn keys_are_encoded_when_asked() {
        let rest = REST.replace("photos é/", "photos%20%C3%A9/");
        check(
            "encoding-type=url&marker=a%2Bb&delimiter=/",
            Some("photos é/"),
            &format!(
                "<Prefix></Prefix><Marker>a%2Bb</Marker><NextMarker>photos%20%C3%A9/</NextMarker>\
                 <MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter><EncodingType>url</EncodingType>\
                 <IsTruncated>true</IsTruncated>{}{OWNER}{rest}",
                CONTENTS.replace("my image&amp;1.jpg", "my%20image%261.jpg")
            ),
        );
    }

    #[test]
    fn the_node_is_asked_for_the_right_page() {
        let wanted = |query: &str| listing(query).unwrap().wanted();
        assert_eq!(wanted(""), ListObjects { max: 1000, ..ListObjects::default() });
        assert_eq!(wanted("marker=m").after, After::Key(b"m".to_vec()));
        assert_eq!(wanted("list-type=2&start-after=s").after, After::Key(b"s".to_vec()));
        let both = format!("list-type=2&start-after=s&continuation-token={}", write_token(b"t"));
        assert_eq!(wanted(&both).after, After::Key(b"t".to_vec()));
        assert_eq!(wanted("max-keys=0&prefix=p&delimiter=%C3%A9").delimiter, "é".as_bytes());
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for query in [
            "list-type=1",
            "list-type=",
            "max-keys=-1",
            "encoding-type=base64",
            "list-type=2&continuation-token=",
            "list-type=2&continuation-token=AQ",
            "list-type=2&continuation-token=photos/",
            "list-type=2&continuation-token=AmE",
        ] {
            assert_eq!(listing(query).unwrap_err().code(), "InvalidArgument", "{query}");
        }
    }

    proptest! {
        #[test]
        fn a_token_carries_its_position(position in proptest::collection::vec(any::<u8>(), 1..=KEY_BYTES_MAX)) {
            prop_assert_eq!(read_token(&write_token(&position)).unwrap(), position);
        }

        #[test]
        fn no_text_breaks_the_token(text: String) {
            let _ = read_token(&text);
        }
    }
}
