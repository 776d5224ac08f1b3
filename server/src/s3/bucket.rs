//! Buckets: listed, made, looked at, deleted; and the answers about them that never change.

use anvil_model::access::{Command, PublicBucket};
use anvil_model::object::{BucketName, Key};
use anvil_node::bucket::BucketInfo;

use super::error::{Code, S3Error};
use super::xml::{XmlReader, XmlWriter};
use super::{Answer, Request, S3, date, no_content, ok, owner_id, xml_response};
use crate::access::By;
use crate::auth::Payload;
use crate::http::{Incoming, Outgoing};

impl S3 {
    pub(super) async fn list_buckets(&self, request: &Request<'_>) -> Answer {
        let query = &request.query;
        let max = query.count("max-buckets", 1, BUCKETS_MAX)?;
        let prefix = query.value("prefix").unwrap_or_default();
        let mut after = query.non_empty("continuation-token").map(str::to_owned);
        let mut buckets: Vec<BucketInfo> = Vec::new();
        let mut more =
            query.value("bucket-region").is_none_or(|region| region.is_empty() || region == self.node.region());
        while more && buckets.len() <= max {
            let page = self.node.list_buckets(request.caller(), after, BUCKETS_PAGE).await?;
            more = page.len() == BUCKETS_PAGE;
            after = page.last().map(|bucket| bucket.name.to_string());
            buckets.extend(page.into_iter().filter(|bucket| bucket.name.as_str().starts_with(prefix)));
        }
        let next = buckets.len() > max;
        buckets.truncate(max);
        Ok(xml_response(buckets_xml(&buckets, &owner_id(request.caller()), next, prefix)))
    }

    pub(super) async fn create_bucket<I: Incoming>(
        &self,
        request: &Request<'_>,
        bucket: BucketName,
        payload: Payload,
        incoming: &mut I,
    ) -> Answer {
        let document = request.document(payload, incoming, CONFIGURATION_BYTES_MAX).await?;
        let location = if document.is_empty() { None } else { location_constraint(&document)? };
        if location.is_some_and(|location| location != self.node.region()) {
            return Err(S3Error::new(Code::INVALID_LOCATION_CONSTRAINT));
        }
        let location = format!("/{bucket}");
        self.node.create_bucket(request.caller(), bucket).await?;
        Ok(ok(vec![("Location".into(), location)], Outgoing::Empty))
    }

    pub(super) async fn head_bucket(&self, request: &Request<'_>, bucket: BucketName) -> Answer {
        let info = self.node.head_bucket(request.caller(), bucket).await?;
        let headers =
            vec![("x-amz-bucket-region".into(), info.region), ("x-amz-access-point-alias".into(), "false".to_owned())];
        Ok(ok(headers, Outgoing::Empty))
    }

    pub(super) async fn delete_bucket(&self, request: &Request<'_>, bucket: BucketName) -> Answer {
        self.node.delete_bucket(request.caller(), bucket.clone()).await?;
        if let Some((tenant, id)) = self.authenticator.directory().public(&bucket) {
            // It was public by its id, and no other bucket is: this keeps the list short, and may fail.
            let by = By { who: "the node".to_owned(), user: None, from: String::new() };
            let bucket = PublicBucket { name: bucket, tenant };
            drop(self.keeper.change(&self.node, &by, Command::SetPublic { id, bucket, public: false }).await);
        }
        Ok(no_content())
    }

    pub(super) async fn get_bucket_location(&self, request: &Request<'_>, bucket: BucketName) -> Answer {
        let info = self.node.head_bucket(request.caller(), bucket).await?;
        Ok(xml_response(location_xml(&info.region)))
    }

    pub(super) async fn get_bucket_versioning(&self, request: &Request<'_>, bucket: BucketName) -> Answer {
        self.node.head_bucket(request.caller(), bucket).await?;
        Ok(xml_response(XmlWriter::document("VersioningConfiguration", |_| {})))
    }

    pub(super) async fn get_bucket_acl(&self, request: &Request<'_>, bucket: BucketName) -> Answer {
        self.node.head_bucket(request.caller(), bucket).await?;
        Ok(xml_response(acl_xml(&owner_id(request.caller()))))
    }

    pub(super) async fn get_object_acl(&self, request: &Request<'_>, bucket: BucketName, key: Key) -> Answer {
        self.node.open(request.caller(), bucket, key, None).await?;
        Ok(xml_response(acl_xml(&owner_id(request.caller()))))
    }
}

/// Reads a `CreateBucketConfiguration`; what it could say beside a location is not there yet.
fn location_constraint(document: &[u8]) -> Result<Option<String>, S3Error> {
    let mut xml = XmlReader::open(document, "CreateBucketConfiguration")?;
    let mut location = None;
    while let Some(name) = xml.child()? {
        match name.as_str() {
            "LocationConstraint" if location.is_none() => location = Some(xml.text()?),
            "Location" | "Bucket" | "Tags" => return Err(S3Error::new(Code::NOT_IMPLEMENTED)),
            _ => return Err(S3Error::new(Code::MALFORMED_XML)),
        }
    }
    xml.finish()?;
    Ok(location.filter(|location| !location.is_empty()))
}

/// Reads whatever comes, see [`super::fuzz`].
pub(super) fn fuzz(document: &[u8]) {
    let _ = location_constraint(document);
}

fn buckets_xml(buckets: &[BucketInfo], owner: &str, more: bool, prefix: &str) -> Vec<u8> {
    XmlWriter::document("ListAllMyBucketsResult", |xml| {
        xml.element("Owner", |xml| xml.text("ID", owner));
        xml.element("Buckets", |xml| {
            for bucket in buckets {
                xml.element("Bucket", |xml| {
                    xml.text("Name", bucket.name.as_str());
                    xml.text("CreationDate", &date::iso(bucket.created_at));
                    xml.text("BucketRegion", &bucket.region);
                });
            }
        });
        // A bucket's name is the position behind it, and has nothing to hide.
        xml.optional("ContinuationToken", buckets.last().filter(|_| more).map(|bucket| bucket.name.as_str()));
        xml.optional("Prefix", Some(prefix).filter(|prefix| !prefix.is_empty()));
    })
}

/// AWS's first region has no name here.
fn location_xml(region: &str) -> Vec<u8> {
    XmlWriter::document("LocationConstraint", |xml| {
        if region != "us-east-1" {
            xml.characters(region);
        }
    })
}

/// Ownership is enforced for the bucket's owner, so there is only one access control list.
fn acl_xml(owner: &str) -> Vec<u8> {
    let user = [("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"), ("xsi:type", "CanonicalUser")];
    XmlWriter::document("AccessControlPolicy", |xml| {
        xml.element("Owner", |xml| xml.text("ID", owner));
        xml.element("AccessControlList", |xml| {
            xml.element("Grant", |xml| {
                xml.element_with("Grantee", &user, |xml| xml.text("ID", owner));
                xml.text("Permission", "FULL_CONTROL");
            });
        });
    })
}

/// Buckets that one answer may hold (AWS: 10,000).
const BUCKETS_MAX: usize = 10_000;
/// Buckets that are asked for at once.
const BUCKETS_PAGE: usize = 1000;
/// A `CreateBucketConfiguration` has one line.
const CONFIGURATION_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use anvil_model::ids::BucketId;
    use anvil_node::metadata::rows::StorageClass;

    use anvil_model::time::WallTime;

    use super::*;

    fn check(xml: Vec<u8>, expected: &str) {
        let text = String::from_utf8(xml).unwrap();
        let body = text.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").unwrap();
        assert_eq!(body.replace(" xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"", ""), expected);
    }

    #[test]
    fn buckets_are_listed_as_aws_does() {
        let bucket = |name: &str| BucketInfo {
            id: BucketId(1),
            name: BucketName::new(name).unwrap(),
            region: "eu-1".to_owned(),
            created_at: WallTime { unix_ms: 1_573_600_000_000 },
            storage_class: StorageClass::Standard,
        };
        check(
            buckets_xml(&[bucket("one"), bucket("two")], "abc", true, "o"),
            "<ListAllMyBucketsResult><Owner><ID>abc</ID></Owner><Buckets>\
             <Bucket><Name>one</Name><CreationDate>2019-11-12T23:06:40.000Z</CreationDate><BucketRegion>eu-1</BucketRegion></Bucket>\
             <Bucket><Name>two</Name><CreationDate>2019-11-12T23:06:40.000Z</CreationDate><BucketRegion>eu-1</BucketRegion></Bucket>\
             </Buckets><ContinuationToken>two</ContinuationToken><Prefix>o</Prefix></ListAllMyBucketsResult>",
        );
        check(
            buckets_xml(&[], "abc", false, ""),
            "<ListAllMyBucketsResult><Owner><ID>abc</ID></Owner><Buckets></Buckets></ListAllMyBucketsResult>",
        );
    }

    #[test]
    fn a_location_is_empty_in_the_first_region() {
        check(location_xml("us-east-1"), "<LocationConstraint></LocationConstraint>");
        check(location_xml("eu-1"), "<LocationConstraint>eu-1</LocationConstraint>");
    }

    #[test]
    fn the_owner_has_full_control() {
        check(
            acl_xml("abc"),
            "<AccessControlPolicy><Owner><ID>abc</ID></Owner><AccessControlList><Grant>\
             <Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\"><ID>abc</ID></Grantee>\
             <Permission>FULL_CONTROL</Permission></Grant></AccessControlList></AccessControlPolicy>",
        );
    }

    #[test]
    fn a_configuration_names_a_location_or_nothing() {
        let read = |text: &str| location_constraint(text.as_bytes()).map_err(|error| error.code());
        let full = "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                    <LocationConstraint>eu-1</LocationConstraint></CreateBucketConfiguration>";
        assert_eq!(read(full), Ok(Some("eu-1".to_owned())));
        assert_eq!(read("<CreateBucketConfiguration/>"), Ok(None));
        assert_eq!(read("<CreateBucketConfiguration><LocationConstraint/></CreateBucketConfiguration>"), Ok(None));
        let tags = "<CreateBucketConfiguration><Tags></Tags></CreateBucketConfiguration>";
        assert_eq!(read(tags), Err("NotImplemented"));
        assert_eq!(read("<CreateBucketConfiguration><X/></CreateBucketConfiguration>"), Err("MalformedXML"));
        assert_eq!(read("{}"), Err("MalformedXML"));
    }
}
