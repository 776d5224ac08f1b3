//! Settings of buckets and objects that can be asked for and cannot be made yet: what AWS answers where there is none.

use anvil_model::object::{BucketName, Key};

use super::error::{Code, S3Error};
use super::route::BucketOperation;
use super::xml::XmlWriter;
use super::{Answer, Request, S3, xml_response};

impl S3 {
    /// Answers for one of the settings of a bucket.
    pub(super) async fn get_bucket_setting(
        &self,
        request: &Request<'_>,
        bucket: BucketName,
        setting: BucketOperation,
    ) -> Answer {
        self.node.head_bucket(request.caller(), bucket.clone()).await?;
        match unset(setting) {
            Unset::Document(document) => Ok(xml_response(document)),
            Unset::Missing(code) => Err(S3Error::new(code).with("BucketName", bucket.to_string())),
        }
    }

    /// No object has tags yet.
    pub(super) async fn get_object_tagging(&self, request: &Request<'_>, bucket: BucketName, key: Key) -> Answer {
        self.node.open(request.caller(), bucket, key, None).await?;
        Ok(xml_response(XmlWriter::document("Tagging", |xml| xml.element("TagSet", |_| {}))))
    }

    /// No bucket can lock its objects yet.
    pub(super) async fn get_object_lock(&self, request: &Request<'_>, bucket: BucketName, key: Key) -> Answer {
        self.node.open(request.caller(), bucket, key, None).await?;
        Err(S3Error::request("Bucket is missing Object Lock Configuration"))
    }
}

/// What AWS answers for a setting that was never made.
enum Unset {
    /// The setting has a default.
    Document(Vec<u8>),
    /// It has none.
    Missing(&'static Code),
}

fn unset(setting: BucketOperation) -> Unset {
    use BucketOperation as B;
    let empty = |root| Unset::Document(XmlWriter::document(root, |_| {}));
    match setting {
        B::GetObjectLockConfiguration => Unset::Missing(Code::NO_SUCH_OBJECT_LOCK_CONFIGURATION),
        B::GetBucketPolicy | B::GetBucketPolicyStatus => Unset::Missing(Code::NO_SUCH_BUCKET_POLICY),
        B::GetBucketTagging => Unset::Missing(Code::NO_SUCH_TAG_SET),
        B::GetBucketLifecycleConfiguration => Unset::Missing(Code::NO_SUCH_LIFECYCLE_CONFIGURATION),
        B::GetBucketEncryption => Unset::Missing(Code::NO_SUCH_ENCRYPTION_CONFIGURATION),
        B::GetBucketCors => Unset::Missing(Code::NO_SUCH_CORS_CONFIGURATION),
        B::GetBucketReplication => Unset::Missing(Code::NO_SUCH_REPLICATION_CONFIGURATION),
        B::GetBucketWebsite => Unset::Missing(Code::NO_SUCH_WEBSITE_CONFIGURATION),
        B::GetBucketNotificationConfiguration => empty("NotificationConfiguration"),
        B::GetBucketLogging => empty("BucketLoggingStatus"),
        B::GetBucketAccelerateConfiguration => empty("AccelerateConfiguration"),
        B::GetBucketRequestPayment => Unset::Document(XmlWriter::document("RequestPaymentConfiguration", |xml| {
            xml.text("Payer", "BucketOwner");
        })),
        B::GetBucketOwnershipControls => Unset::Document(XmlWriter::document("OwnershipControls", |xml| {
            xml.element("Rule", |xml| xml.text("ObjectOwnership", "BucketOwnerEnforced"));
        })),
        B::GetPublicAccessBlock => Unset::Document(XmlWriter::document("PublicAccessBlockConfiguration", |xml| {
            for name in ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"] {
                xml.value(name, true);
            }
        })),
        // Operations with a story of their own never come here; a row of the table without an answer is no setting.
        _ => Unset::Missing(Code::NOT_IMPLEMENTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_was_never_made_is_answered_as_aws_does() {
        let text = |setting| match unset(setting) {
            Unset::Document(xml) => String::from_utf8(xml).unwrap().split_once("01/\">").unwrap().1.to_owned(),
            Unset::Missing(code) => S3Error::new(code).code().to_owned(),
        };
        assert_eq!(text(BucketOperation::GetBucketPolicy), "NoSuchBucketPolicy");
        assert_eq!(text(BucketOperation::GetBucketTagging), "NoSuchTagSet");
        assert_eq!(text(BucketOperation::GetObjectLockConfiguration), "ObjectLockConfigurationNotFoundError");
        assert_eq!(text(BucketOperation::GetBucketLogging), "</BucketLoggingStatus>");
        assert_eq!(
            text(BucketOperation::GetBucketOwnershipControls),
            "<Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>"
        );
    }
}
