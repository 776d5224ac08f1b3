//! ListMultipartUploads and ListParts.

use anvil_model::ids::UploadId;
use anvil_model::limits::{PAGE_KEYS_MAX, PART_NUMBER_MAX};
use anvil_model::object::{BucketName, ChecksumAlgorithm, ChecksumType};
use anvil_node::multipart::{ListUploads, PartsPage, UploadName, UploadsPage};

use super::encoding::Encoding;
use super::error::S3Error;
use super::query::Query;
use super::xml::XmlWriter;
use super::{Answer, Request, S3, checksum, date, owner_id, xml_response};

impl S3 {
    pub(super) async fn list_parts(&self, request: &Request<'_>, upload: UploadName) -> Answer {
        let max = request.query.count("max-parts", 0, PAGE_KEYS_MAX)?;
        let after = part_number_marker(&request.query)?;
        let page = self.node.list_parts(upload.clone(), after, max).await?;
        Ok(xml_response(parts_xml(&upload, after, max, &page, &owner_id(request.caller()))))
    }

    pub(super) async fn list_uploads(&self, request: &Request<'_>, bucket: BucketName) -> Answer {
        let listing = Listing::read(&request.query)?;
        let page = self.node.list_uploads(request.caller(), bucket.clone(), listing.wanted()).await?;
        Ok(xml_response(listing.xml(&bucket, &page, &owner_id(request.caller()))))
    }
}

fn part_number_marker(query: &Query) -> Result<u16, S3Error> {
    let Some(text) = query.non_empty("part-number-marker") else { return Ok(0) };
    let number = text.parse::<u32>().ok().filter(|number| *number <= i32::MAX.unsigned_abs());
    let number = number.ok_or_else(|| {
        let message = format!("Argument part-number-marker must be an integer between 0 and {}", i32::MAX);
        S3Error::argument("part-number-marker", text, message)
    })?;
    Ok(u16::try_from(number).unwrap_or(PART_NUMBER_MAX))
}

fn parts_xml(upload: &UploadName, after: u16, max: usize, page: &PartsPage, owner: &str) -> Vec<u8> {
    XmlWriter::document("ListPartsResult", |xml| {
        xml.text("Bucket", upload.bucket.as_str());
        xml.text("Key", upload.key.as_str());
        xml.value("UploadId", upload.upload);
        write_people(xml, owner);
        xml.text("StorageClass", page.storage_class.as_str());
        xml.value("PartNumberMarker", after);
        xml.value("NextPartNumberMarker", page.parts.last().map_or(after, |part| part.number));
        xml.value("MaxParts", max);
        // With no part on the page there is no marker to go on from.
        xml.value("IsTruncated", page.more && !page.parts.is_empty());
        write_checksum(xml, page.checksum);
        for part in &page.parts {
            xml.element("Part", |xml| {
                xml.value("PartNumber", part.number);
                xml.text("LastModified", &date::iso(part.last_modified));
                xml.text("ETag", &format!("\"{}\"", part.etag));
                xml.value("Size", part.size);
                xml.text(checksum::element_name(part.checksum.algorithm), &checksum::text(&part.checksum, None));
            });
        }
    })
}

fn write_people(xml: &mut XmlWriter, owner: &str) {
    xml.element("Initiator", |xml| xml.text("ID", owner));
    xml.element("Owner", |xml| xml.text("ID", owner));
}

fn write_checksum(xml: &mut XmlWriter, checksum: Option<(ChecksumAlgorithm, ChecksumType)>) {
    if let Some((algorithm, of)) = checksum {
        xml.text("ChecksumAlgorithm", algorithm.name());
        xml.text("ChecksumType", checksum::type_name(of));
    }
}

/// A listing of uploads as it was asked for.
#[derive(Debug)]
struct Listing {
    prefix: String,
    delimiter: String,
    key_marker: String,
    /// Counts only beside a key marker.
    upload_marker: Option<UploadId>,
    max: usize,
    encoding: Encoding,
}

impl Listing {
    fn read(query: &Query) -> Result<Self, S3Error> {
        let key_marker = query.value("key-marker").unwrap_or_default().to_owned();
        let upload_marker = query.non_empty("upload-id-marker").filter(|_| !key_marker.is_empty()).map(|text| {
            text.parse().map_err(|_| S3Error::argument("upload-id-marker", text, "Invalid uploadId marker"))
        });
        Ok(Self {
            prefix: query.value("prefix").unwrap_or_default().to_owned(),
            delimiter: query.value("delimiter").unwrap_or_default().to_owned(),
            key_marker,
            upload_marker: upload_marker.transpose()?,
            max: query.count("max-uploads", 0, PAGE_KEYS_MAX)?,
            encoding: Encoding::read(query)?,
        })
    }

    fn wanted(&self) -> ListUploads {
        let after = (self.key_marker.clone().into_bytes(), self.upload_marker);
        ListUploads {
            prefix: self.prefix.clone().into_bytes(),
            delimiter: self.delimiter.clone().into_bytes(),
            after: Some(after).filter(|(key, _)| !key.is_empty()),
            max: self.max,
        }
    }

    fn xml(&self, bucket: &BucketName, page: &UploadsPage, owner: &str) -> Vec<u8> {
        XmlWriter::document("ListMultipartUploadsResult", |xml| {
            xml.text("Bucket", bucket.as_str());
            xml.text("KeyMarker", &self.encoding.apply(&self.key_marker));
            xml.text("UploadIdMarker", &self.upload_marker.map(|id| id.to_string()).unwrap_or_default());
            if let Some((key, upload)) = &page.next {
                xml.text("NextKeyMarker", &self.encoding.apply_bytes(key));
                xml.text("NextUploadIdMarker", &upload.map(|id| id.to_string()).unwrap_or_default());
            }
            xml.text("Prefix", &self.encoding.apply(&self.prefix));
            if !self.delimiter.is_empty() {
                xml.text("Delimiter", &self.encoding.apply(&self.delimiter));
            }
            xml.value("MaxUploads", self.max);
            self.encoding.write(xml);
            xml.value("IsTruncated", page.next.is_some());
            for upload in &page.uploads {
                xml.element("Upload", |xml| {
                    xml.text("Key", &self.encoding.apply(&upload.key));
                    xml.value("UploadId", upload.upload);
                    write_people(xml, owner);
                    xml.text("StorageClass", upload.storage_class.as_str());
                    xml.text("Initiated", &date::iso(upload.initiated_at));
                    write_checksum(xml, upload.checksum);
                });
            }
            for prefix in &page.common_prefixes {
                xml.element("CommonPrefixes", |xml| xml.text("Prefix", &self.encoding.apply_bytes(prefix)));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::ids::TenantId;
    use anvil_model::object::{Checksum, Etag, Key};
    use anvil_model::time::WallTime;
    use anvil_node::Caller;
    use anvil_node::metadata::rows::StorageClass;
    use anvil_node::multipart::{PartInfo, UploadInfo};

    use super::*;

    const TIME: WallTime = WallTime { unix_ms: 1_289_428_087_000 };

    fn body(xml: Vec<u8>) -> String {
        let text = String::from_utf8(xml).unwrap();
        text.replace("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", "")
            .replace(" xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"", "")
    }

    #[test]
    fn parts_are_listed_as_aws_does() {
        let upload = UploadName {
            caller: Caller { tenant: TenantId(1) },
            bucket: BucketName::new("bucket").unwrap(),
            key: Key::new(b"k".to_vec()).unwrap(),
            upload: UploadId(1),
        };
        let part = PartInfo {
            number: 2,
            etag: Etag("7778aef83f66abc1fa1e8477f296d394".to_owned()),
            checksum: Checksum {
                algorithm: ChecksumAlgorithm::Crc32,
                of: ChecksumType::FullObject,
                value: vec![0, 1, 2, 3],
            },
            size: 10_485_760,
            last_modified: TIME,
        };
        let checksum = Some((ChecksumAlgorithm::Crc32, ChecksumType::Composite));
        let page = PartsPage { parts: vec![part], more: true, checksum, storage_class: StorageClass::Standard };
        assert_eq!(
            body(parts_xml(&upload, 1, 1, &page, "me")),
            "<ListPartsResult><Bucket>bucket</Bucket><Key>k</Key><UploadId>00000000000000000000000000000001</UploadId>\
             <Initiator><ID>me</ID></Initiator><Owner><ID>me</ID></Owner><StorageClass>STANDARD</StorageClass>\
             <PartNumberMarker>1</PartNumberMarker><NextPartNumberMarker>2</NextPartNumberMarker><MaxParts>1</MaxParts>\
             <IsTruncated>true</IsTruncated><ChecksumAlgorithm>CRC32</ChecksumAlgorithm>\
             <ChecksumType>COMPOSITE</ChecksumType><Part><PartNumber>2</PartNumber>\
             <LastModified>2010-11-10T22:28:07.000Z</LastModified><ETag>&quot;7778aef83f66abc1fa1e8477f296d394&quot;</ETag>\
             <Size>10485760</Size><ChecksumCRC32>AAECAw==</ChecksumCRC32></Part></ListPartsResult>"
        );
    }

    #[test]
    fn uploads_are_listed_as_aws_does() {
        let query = Query::read(Some("key-marker=a&upload-id-marker=000000000000000000000000000000ff&delimiter=/"));
        let listing = Listing::read(&query.unwrap()).unwrap();
        assert_eq!(listing.wanted().after, Some((b"a".to_vec(), Some(UploadId(255)))));
        let upload = UploadInfo {
            key: "b".to_owned(),
            upload: UploadId(1),
            initiated_at: TIME,
            checksum: None,
            storage_class: StorageClass::Standard,
        };
        let page = UploadsPage {
            uploads: vec![upload],
            common_prefixes: vec![b"c/".to_vec()],
            next: Some((b"c/".to_vec(), None)),
        };
        assert_eq!(
            body(listing.xml(&BucketName::new("bucket").unwrap(), &page, "me")),
            "<ListMultipartUploadsResult><Bucket>bucket</Bucket><KeyMarker>a</KeyMarker>\
             <UploadIdMarker>000000000000000000000000000000ff</UploadIdMarker><NextKeyMarker>c/</NextKeyMarker>\
             <NextUploadIdMarker></NextUploadIdMarker><Prefix></Prefix><Delimiter>/</Delimiter>\
             <MaxUploads>1000</MaxUploads><IsTruncated>true</IsTruncated><Upload><Key>b</Key>\
             <UploadId>00000000000000000000000000000001</UploadId><Initiator><ID>me</ID></Initiator>\
             <Owner><ID>me</ID></Owner><StorageClass>STANDARD</StorageClass>\
             <Initiated>2010-11-10T22:28:07.000Z</Initiated></Upload><CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes>\
             </ListMultipartUploadsResult>"
        );
    }

    #[test]
    fn an_upload_marker_counts_only_beside_a_key_marker() {
        let read = |text: &str| Listing::read(&Query::read(Some(text)).unwrap()).map(|listing| listing.wanted().after);
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("upload-id-marker=nonsense").unwrap(), None);
        assert_eq!(read("key-marker=k").unwrap(), Some((b"k".to_vec(), None)));
        assert_eq!(read("key-marker=k&upload-id-marker=nonsense").unwrap_err().code(), "InvalidArgument");
    }

    #[test]
    fn a_part_number_marker_lies_anywhere() {
        let read = |text: &str| part_number_marker(&Query::read(Some(text)).unwrap()).ok();
        assert_eq!(read(""), Some(0));
        assert_eq!(read("part-number-marker=9"), Some(9));
        assert_eq!(read("part-number-marker=70000"), Some(PART_NUMBER_MAX));
        assert_eq!(read("part-number-marker=-1"), None);
    }
}
