//! Multipart uploads: begun, filled, completed, aborted. Their listings are in `uploads`.

use std::collections::BTreeMap;

use anvil_model::ids::UploadId;
use anvil_model::limits::{PAGE_KEYS_MAX, PART_NUMBER_MAX};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, Etag, Key, WriteConditions};
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_node::multipart::{CreateUpload, PartName, UploadName};
use anvil_node::put::Stored;

use super::error::{Code, S3Error};
use super::headers::single;
use super::put::{object_body, stored_response, trailing_checksum};
use super::xml::{XmlReader, XmlWriter};
use super::{Answer, Request, S3, checksum, conditions, headers, no_content, xml_response};
use crate::auth::{Payload, uri};
use crate::http::Incoming;

impl S3 {
    pub(super) async fn create_upload(&self, request: &Request<'_>, bucket: BucketName, key: Key) -> Answer {
        let wanted = checksum::of_upload_to_be(request.head)?;
        self.check_conditions_early(request, &bucket, &key).await?;
        let create = CreateUpload {
            caller: request.caller(),
            bucket: bucket.clone(),
            key: key.clone(),
            headers: headers::of_object(request.head)?,
            checksum: wanted,
            storage_class: headers::storage_class(request.head, self.node.classes())?,
        };
        let upload = self.node.create_upload(create).await?;
        let mut response = xml_response(created_xml(&bucket, &key, upload));
        if let Some((algorithm, of)) = wanted {
            response.headers.push(("x-amz-checksum-algorithm".into(), algorithm.name().to_owned()));
            response.headers.push(("x-amz-checksum-type".into(), checksum::type_name(of).to_owned()));
        }
        Ok(response)
    }

    pub(super) async fn upload_part<I: Incoming>(
        &self,
        request: &Request<'_>,
        upload: UploadName,
        number: u16,
        payload: Payload,
        incoming: &mut I,
    ) -> Answer {
        let expected = headers::expected(request.head, trailing_checksum(&payload))?;
        let mut body = object_body(request.head, payload, incoming)?;
        let stored = self.node.put_part(upload, number, expected, &mut body).await?;
        Ok(stored_response(&stored))
    }

    pub(super) async fn complete_upload<I: Incoming>(
        &self,
        request: &Request<'_>,
        upload: UploadName,
        payload: Payload,
        incoming: &mut I,
    ) -> Answer {
        let conditions = conditions::of_write(request.head)?;
        let (document, _) = request.raw_document(payload, incoming, DOCUMENT_BYTES_MAX).await?;
        let parts = read_parts(&document)?;
        let checksum = checksum::of_upload(request.head, parts.len())?;
        self.check_promises(request, &upload, &parts).await?;
        let (bucket, key) = (upload.bucket.clone(), upload.key.clone());
        let count = u16::try_from(parts.len()).expect("no more parts are read than there are numbers");
        let (stored, _) = self.node.complete_upload(upload, parts, checksum, conditions).await?;
        let (host, name) = (request.head.host().unwrap_or_default(), uri::encode_path(key.as_bytes()));
        let location =
            if request.in_host { format!("http://{host}/{name}") } else { format!("http://{host}/{bucket}/{name}") };
        Ok(xml_response(completed_xml(&location, &bucket, &key, &stored, count)))
    }

    pub(super) async fn abort_upload(&self, upload: UploadName) -> Answer {
        self.node.abort_upload(upload).await?;
        Ok(no_content())
    }

    /// Refuses an upload whose completion could not happen now. Clients send the conditions with the completion too, and
    /// there they are decided.
    async fn check_conditions_early(
        &self,
        request: &Request<'_>,
        bucket: &BucketName,
        key: &Key,
    ) -> Result<(), S3Error> {
        let conditions = conditions::of_write(request.head)?;
        if conditions == WriteConditions::default() {
            return Ok(());
        }
        let current = match self.node.open(request.caller(), bucket.clone(), key.clone(), None).await {
            Ok(found) => Some(found.etag),
            Err(MetadataError::Refused(Refusal::NoSuchKey)) => None,
            Err(error) => return Err(error.into()),
        };
        match (current, conditions.etag) {
            (Some(_), _) if conditions.absent => Err(conditions::failed("If-None-Match")),
            (Some(current), Some(etag)) if current != etag => Err(conditions::failed("If-Match")),
            (None, Some(_)) => Err(S3Error::new(Code::NO_SUCH_KEY)),
            _ => Ok(()),
        }
    }

    /// Holds the upload to what the head of its completion says of the object's size and type of checksum. The parts
    /// that are looked at here are those that the completion takes, or it fails, because it names their tags. An upload
    /// that is gone is left to the completion, which may have been done before.
    async fn check_promises(
        &self,
        request: &Request<'_>,
        upload: &UploadName,
        parts: &[PartName],
    ) -> Result<(), S3Error> {
        let size = object_size(request)?;
        let of = checksum::declared_type(request.head)?;
        if size.is_none() && of.is_none() {
            return Ok(());
        }
        let named: BTreeMap<u16, &Etag> = parts.iter().map(|part| (part.number, &part.etag)).collect();
        let mut after = 0;
        let mut computed: u64 = 0;
        loop {
            let page = match self.node.list_parts(upload.clone(), after, PAGE_KEYS_MAX).await {
                Err(MetadataError::Refused(Refusal::NoSuchUpload(_))) => return Ok(()),
                page => page?,
            };
            if let (Some(of), Some((_, kept))) = (of, page.checksum)
                && of != kept
            {
                let message = format!(
                    "The upload was created using the {} checksum mode. The complete request must use the same \
                     checksum mode.",
                    checksum::type_name(kept)
                );
                return Err(S3Error::request(message));
            }
            let taken = page.parts.iter().filter(|part| named.get(&part.number) == Some(&&part.etag));
            computed += taken.map(|part| part.size).sum::<u64>();
            match page.parts.last() {
                Some(last) if page.more => after = last.number,
                _ => break,
            }
        }
        match size {
            Some(size) if size != computed => Err(S3Error::request(format!(
                "The provided 'x-amz-mp-object-size' header value {size} does not match what was computed: {computed}"
            ))),
            _ => Ok(()),
        }
    }
}

fn object_size(request: &Request<'_>) -> Result<Option<u64>, S3Error> {
    let Some(text) = single(request.head, "x-amz-mp-object-size")? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| S3Error::request("Value for x-amz-mp-object-size header is invalid."))
}

/// Reads the list of a `CompleteMultipartUpload`. Its order is the node's to judge.
fn read_parts(document: &[u8]) -> Result<Vec<PartName>, S3Error> {
    let mut xml = XmlReader::open(document, "CompleteMultipartUpload")?;
    let mut parts = Vec::new();
    while let Some(name) = xml.child()? {
        if name != "Part" || parts.len() == usize::from(PART_NUMBER_MAX) {
            return Err(S3Error::new(Code::MALFORMED_XML));
        }
        parts.push(read_part(&mut xml)?);
    }
    xml.finish()?;
    if parts.is_empty() { Err(S3Error::new(Code::MALFORMED_XML)) } else { Ok(parts) }
}

/// Reads whatever comes, see [`super::fuzz`].
pub(super) fn fuzz(document: &[u8]) {
    if let Ok(parts) = read_parts(document) {
        assert!((1..=usize::from(PART_NUMBER_MAX)).contains(&parts.len()));
    }
}

fn read_part(xml: &mut XmlReader<'_>) -> Result<PartName, S3Error> {
    let (mut number, mut etag, mut checksum) = (None, None, None);
    while let Some(name) = xml.child()? {
        match name.as_str() {
            "PartNumber" if number.is_none() => number = Some(read_number(&xml.text()?)?),
            "ETag" if etag.is_none() => etag = Some(Etag(conditions::unquote(&xml.text()?).to_owned())),
            name if name.starts_with("Checksum") => {
                let algorithm = ChecksumAlgorithm::ALL.into_iter().find(|a| checksum::element_name(*a) == name);
                let algorithm = algorithm.ok_or_else(|| S3Error::new(Code::NOT_IMPLEMENTED))?;
                let text = xml.text()?;
                if !text.is_empty() && checksum.replace(read_checksum(algorithm, &text)?).is_some() {
                    return Err(S3Error::new(Code::MALFORMED_XML));
                }
            }
            _ => return Err(S3Error::new(Code::MALFORMED_XML)),
        }
    }
    match (number, etag) {
        (Some(number), Some(etag)) => Ok(PartName { number, etag, checksum }),
        _ => Err(S3Error::new(Code::MALFORMED_XML)),
    }
}

fn read_number(text: &str) -> Result<u16, S3Error> {
    let number = text.trim().parse().ok().filter(|number| (1..=PART_NUMBER_MAX).contains(number));
    number.ok_or_else(|| {
        let message = format!("Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive");
        S3Error::argument("PartNumber", text, message)
    })
}

fn read_checksum(algorithm: ChecksumAlgorithm, text: &str) -> Result<Checksum, S3Error> {
    let invalid = || S3Error::request(format!("Value for {} is invalid.", checksum::element_name(algorithm)));
    checksum::parse(algorithm, text).ok_or_else(invalid)
}

fn created_xml(bucket: &BucketName, key: &Key, upload: UploadId) -> Vec<u8> {
    XmlWriter::document("InitiateMultipartUploadResult", |xml| {
        xml.text("Bucket", bucket.as_str());
        xml.text("Key", key.as_str());
        xml.value("UploadId", upload);
    })
}

fn completed_xml(location: &str, bucket: &BucketName, key: &Key, stored: &Stored, parts: u16) -> Vec<u8> {
    XmlWriter::document("CompleteMultipartUploadResult", |xml| {
        xml.text("Location", location);
        xml.text("Bucket", bucket.as_str());
        xml.text("Key", key.as_str());
        xml.text("ETag", &format!("\"{}\"", stored.etag));
        let Checksum { algorithm, of, .. } = stored.checksum;
        xml.text(checksum::element_name(algorithm), &checksum::text(&stored.checksum, Some(parts)));
        xml.text("ChecksumType", checksum::type_name(of));
    })
}

/// 10,000 parts with the longest checksum and generous white space.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use anvil_model::object::ChecksumType;
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<PartName>, &'static str> {
        read_parts(text.as_bytes()).map_err(|error| error.code())
    }

    #[test]
    fn the_list_of_aws_is_read() {
        let text = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n\
            <Part><ChecksumCRC32>AAECAw==</ChecksumCRC32><ETag>&quot;a54357aff0632cce46d942af68356b38&quot;</ETag>\
            <PartNumber>1</PartNumber></Part>\n\
            <Part><PartNumber>7</PartNumber><ETag>0c78aef83f66abc1fa1e8477f296d394</ETag><ChecksumSHA1/></Part>\n\
            </CompleteMultipartUpload>";
        let parts = read(text).unwrap();
        assert_eq!((parts[0].number, parts[0].etag.0.as_str()), (1, "a54357aff0632cce46d942af68356b38"));
        assert_eq!(parts[0].checksum.as_ref().unwrap().value, [0, 1, 2, 3]);
        assert_eq!((parts[1].number, parts[1].etag.0.as_str()), (7, "0c78aef83f66abc1fa1e8477f296d394"));
        assert_eq!(parts[1].checksum, None);
    }

    #[test]
    fn everything_else_is_refused() {
        let part = |inner: &str| format!("<CompleteMultipartUpload><Part>{inner}</Part></CompleteMultipartUpload>");
        for (text, code) in [
            ("".to_owned(), "MalformedXML"),
            ("<CompleteMultipartUpload/>".to_owned(), "MalformedXML"),
            (part(""), "MalformedXML"),
            (part("<PartNumber>1</PartNumber>"), "MalformedXML"),
            (part("<ETag>a</ETag>"), "MalformedXML"),
            (part("<PartNumber>1</PartNumber><ETag>a</ETag><ETag>b</ETag>"), "MalformedXML"),
            (part("<PartNumber>1</PartNumber><ETag>a</ETag><Colour>red</Colour>"), "MalformedXML"),
            (part("<PartNumber>0</PartNumber><ETag>a</ETag>"), "InvalidArgument"),
            (part("<PartNumber>10001</PartNumber><ETag>a</ETag>"), "InvalidArgument"),
            (part("<PartNumber>x</PartNumber><ETag>a</ETag>"), "InvalidArgument"),
            (part("<PartNumber>1</PartNumber><ETag>a</ETag><ChecksumCRC32>AA</ChecksumCRC32>"), "InvalidRequest"),
            (part("<PartNumber>1</PartNumber><ETag>a</ETag><ChecksumXXHASH64>AA</ChecksumXXHASH64>"), "NotImplemented"),
        ] {
            assert_eq!(read(&text), Err(code), "{text}");
        }
        let many = |count| {
            let part = "<Part><PartNumber>1</PartNumber><ETag>a</ETag></Part>".repeat(count);
            format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>")
        };
        assert_eq!(read(&many(10_000)).unwrap().len(), 10_000);
        assert_eq!(read(&many(10_001)), Err("MalformedXML"));
    }

    proptest! {
        #[test]
        fn no_document_breaks_the_reader(inner in "(<[A-Za-z]{0,8}/?>|</?(Part|ETag|PartNumber)>|[0-9a-z&;]{0,4}){0,12}") {
            let _ = read(&inner);
            let _ = read(&format!("<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>"));
        }
    }

    #[test]
    fn the_answers_are_the_documents_of_aws() {
        let (bucket, key) = (BucketName::new("bucket").unwrap(), Key::new(b"a & b".to_vec()).unwrap());
        let created = String::from_utf8(created_xml(&bucket, &key, UploadId(0xab))).unwrap();
        assert!(created.ends_with(
            "<InitiateMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>bucket</Bucket>\
             <Key>a &amp; b</Key><UploadId>000000000000000000000000000000ab</UploadId></InitiateMultipartUploadResult>"
        ));
        let stored = Stored {
            etag: Etag("17fbc0a106abbb6f381aac6e331f2a19-2".to_owned()),
            checksum: Checksum {
                algorithm: ChecksumAlgorithm::Crc32,
                of: ChecksumType::Composite,
                value: vec![0, 1, 2, 3],
            },
            size: 10,
        };
        let completed = completed_xml("http://host/bucket/a%20%26%20b", &bucket, &key, &stored, 2);
        assert!(String::from_utf8(completed).unwrap().ends_with(
            "<Location>http://host/bucket/a%20%26%20b</Location><Bucket>bucket</Bucket><Key>a &amp; b</Key>\
             <ETag>&quot;17fbc0a106abbb6f381aac6e331f2a19-2&quot;</ETag><ChecksumCRC32>AAECAw==-2</ChecksumCRC32>\
             <ChecksumType>COMPOSITE</ChecksumType></CompleteMultipartUploadResult>"
        ));
    }
}
