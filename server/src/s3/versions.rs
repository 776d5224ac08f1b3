//! ListObjectVersions. Buckets keep no old versions yet, so every key has one: the null version, which is the latest.

use anvil_model::limits::PAGE_KEYS_MAX;
use anvil_model::object::BucketName;
use anvil_node::list::{After, Entry, ListObjects, Page};

use super::encoding::Encoding;
use super::error::S3Error;
use super::query::Query;
use super::xml::XmlWriter;
use super::{Answer, Request, S3, checksum, date, owner_id, xml_response};

impl S3 {
    pub(super) async fn list_object_versions(&self, request: &Request<'_>, bucket: BucketName) -> Answer {
        let listing = Listing::read(&request.query)?;
        let page = self.node.list_objects(request.caller(), bucket.clone(), listing.wanted()).await?;
        Ok(xml_response(listing.xml(&bucket, &page, &owner_id(request.caller()))))
    }
}

/// A listing of versions as it was asked for.
#[derive(Debug)]
struct Listing {
    prefix: String,
    delimiter: String,
    key_marker: String,
    version_marker: String,
    max: usize,
    encoding: Encoding,
}

impl Listing {
    fn read(query: &Query) -> Result<Self, S3Error> {
        let text = |name| query.value(name).unwrap_or_default().to_owned();
        let (key_marker, version_marker) = (text("key-marker"), text("version-id-marker"));
        if key_marker.is_empty() && !version_marker.is_empty() {
            let message = "A version-id marker cannot be specified without a key marker.";
            return Err(S3Error::argument("version-id-marker", &version_marker, message));
        }
        if !matches!(version_marker.as_str(), "" | NULL) {
            return Err(S3Error::argument("version-id-marker", &version_marker, "Invalid version id specified"));
        }
        Ok(Self {
            prefix: text("prefix"),
            delimiter: text("delimiter"),
            key_marker,
            version_marker,
            max: query.count("max-keys", 0, PAGE_KEYS_MAX)?,
            encoding: Encoding::read(query)?,
        })
    }

    /// A key's only version is behind the marker when its key is, with or without the version named.
    fn wanted(&self) -> ListObjects {
        let after = match self.key_marker.as_str() {
            "" => After::Start,
            marker => After::Key(marker.as_bytes().to_vec()),
        };
        ListObjects {
            prefix: self.prefix.clone().into_bytes(),
            delimiter: self.delimiter.clone().into_bytes(),
            after,
            max: self.max,
        }
    }

    fn xml(&self, bucket: &BucketName, page: &Page, owner: &str) -> Vec<u8> {
        XmlWriter::document("ListVersionsResult", |xml| {
            xml.text("Name", bucket.as_str());
            xml.text("Prefix", &self.encoding.apply(&self.prefix));
            xml.text("KeyMarker", &self.encoding.apply(&self.key_marker));
            xml.text("VersionIdMarker", &self.version_marker);
            if let Some(next) = &page.next {
                xml.text("NextKeyMarker", &self.encoding.apply_bytes(next));
                let behind_a_key = matches!(page.entries.last(), Some(Entry::Object { .. }));
                xml.optional("NextVersionIdMarker", behind_a_key.then_some(NULL));
            }
            xml.value("MaxKeys", self.max);
            if !self.delimiter.is_empty() {
                xml.text("Delimiter", &self.encoding.apply(&self.delimiter));
            }
            self.encoding.write(xml);
            xml.value("IsTruncated", page.next.is_some());
            for entry in &page.entries {
                self.write_version(xml, entry, owner);
            }
            for entry in &page.entries {
                if let Entry::CommonPrefix(prefix) = entry {
                    xml.element("CommonPrefixes", |xml| xml.text("Prefix", &self.encoding.apply_bytes(prefix)));
                }
            }
        })
    }

    fn write_version(&self, xml: &mut XmlWriter, entry: &Entry, owner: &str) {
        let Entry::Object { key, etag, checksum, size, last_modified, storage_class } = entry else { return };
        xml.element("Version", |xml| {
            xml.text("Key", &self.encoding.apply(key));
            xml.text("VersionId", NULL);
            xml.value("IsLatest", true);
            xml.text("LastModified", &date::iso(*last_modified));
            xml.text("ETag", &format!("\"{etag}\""));
            xml.text("ChecksumAlgorithm", checksum.algorithm.name());
            xml.text("ChecksumType", checksum::type_name(checksum.of));
            xml.value("Size", size);
            xml.element("Owner", |xml| xml.text("ID", owner));
            xml.text("StorageClass", storage_class.as_str());
        });
    }
}

/// The id of the version that a bucket without versions has of each key.
const NULL: &str = "null";

#[cfg(test)]
mod tests {
    use anvil_model::object::{Checksum, ChecksumAlgorithm, ChecksumType, Etag};
    use anvil_model::time::WallTime;

    use anvil_node::metadata::rows::StorageClass;

    use super::*;

    fn listing(query: &str) -> Result<Listing, S3Error> {
        Listing::read(&Query::read(Some(query))?)
    }

    #[test]
    fn every_key_has_its_null_version() {
        let checksum =
            Checksum { algorithm: ChecksumAlgorithm::Crc32, of: ChecksumType::FullObject, value: vec![0; 4] };
        let object = Entry::Object {
            key: "a b".to_owned(),
            etag: Etag("t".to_owned()),
            checksum,
            size: 5,
            last_modified: WallTime { unix_ms: 1_255_369_830_123 },
            storage_class: StorageClass::Standard,
        };
        let page = Page { entries: vec![Entry::CommonPrefix(b"a/".to_vec()), object], next: Some(b"a b".to_vec()) };
        let listing = listing("key-marker=A&version-id-marker=null&max-keys=2&encoding-type=url&delimiter=/").unwrap();
        assert_eq!(listing.wanted().after, After::Key(b"A".to_vec()));
        let xml = String::from_utf8(listing.xml(&BucketName::new("bucket").unwrap(), &page, "me")).unwrap();
        assert_eq!(
            xml.split_once("<Name>").unwrap().1,
            "bucket</Name><Prefix></Prefix><KeyMarker>A</KeyMarker><VersionIdMarker>null</VersionIdMarker>\
             <NextKeyMarker>a%20b</NextKeyMarker><NextVersionIdMarker>null</NextVersionIdMarker><MaxKeys>2</MaxKeys>\
             <Delimiter>/</Delimiter><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
             <Version><Key>a%20b</Key><VersionId>null</VersionId><IsLatest>true</IsLatest>\
             <LastModified>2009-10-12T17:50:30.000Z</LastModified><ETag>&quot;t&quot;</ETag>\
             <ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType><Size>5</Size>\
             <Owner><ID>me</ID></Owner><StorageClass>STANDARD</StorageClass></Version>\
             <CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes></ListVersionsResult>"
        );
    }

    #[test]
    fn a_version_is_named_beside_its_key() {
        for bad in ["version-id-marker=null", "key-marker=k&version-id-marker=v1", "max-keys=-1"] {
            assert_eq!(listing(bad).unwrap_err().code(), "InvalidArgument", "{bad}");
        }
        assert!(listing("key-marker=&version-id-marker=").is_ok());
    }
}
