//! Which right each operation takes, and the decision over it: once per request, before a byte of its body.

use anvil_model::access::{Action, Identity, Permit, Resource, decide, decide_somewhere};
use anvil_model::ids::BucketId;
use anvil_model::object::{BucketName, Key};
use anvil_node::Caller;
use anvil_node::get::Found;
use anvil_node::metadata::query::ReadFrom;
use anvil_node::metadata::{MetadataError, Refusal};

use super::error::{Code, S3Error};
use super::query::Query;
use super::route::{BucketOperation, ObjectOperation, Route};
use super::{Request, S3};
use crate::auth::Directory;
use crate::http::Head;

/// Who asks, and what for: what was decided of a request, and what is still to be decided while it runs.
pub(super) struct Access {
    /// `None` for a request without credentials.
    identity: Option<Identity>,
    /// In whose name it looks.
    pub(super) caller: Caller,
    /// The public bucket that it is allowed to read, when that is why.
    public: Option<BucketId>,
}

impl Access {
    /// Decides over a request.
    pub(super) fn decide(
        directory: &Directory,
        identity: Option<Identity>,
        route: &Route,
        query: &Query,
    ) -> Result<Self, S3Error> {
        let public = match route {
            Route::Object(bucket, _, ObjectOperation::GetObject | ObjectOperation::HeadObject) => {
                directory.public(bucket)
            }
            _ => None,
        };
        let who = identity.as_ref();
        let permit = match route {
            // Each key is decided by itself, when they are known.
            Route::Bucket(_, BucketOperation::DeleteObjects) => decide_somewhere(who, Action::ObjectDelete),
            route => {
                let (action, resource) = wanted(route, query);
                decide(who, action, resource, public.map(|(owner, _)| owner))
            }
        };
        let permit = permit.ok_or_else(|| S3Error::new(Code::ACCESS_DENIED))?;
        let public = public.filter(|_| permit.is_public()).map(|(_, id)| id);
        Ok(Self { identity, caller: caller(permit), public })
    }

    /// Everything in the name of a tenant.
    #[cfg(test)]
    pub(super) fn all(tenant: anvil_model::ids::TenantId) -> Self {
        let rights = anvil_model::access::Rights::All;
        Self { identity: Some(Identity { tenant, rights }), caller: Caller { tenant }, public: None }
    }

    /// Whether it may do this too.
    pub(super) fn may(&self, action: Action, resource: Resource<'_>) -> bool {
        decide(self.identity.as_ref(), action, resource, None).is_some()
    }

    /// Whether it may see which keys there are around this one. In a public bucket nobody may, but by a grant.
    fn may_list(&self, bucket: &BucketName, key: &Key) -> bool {
        self.public.is_none()
            && self.may(Action::ObjectList, Resource::Keys { bucket: bucket.as_str(), prefix: key.as_str() })
    }

    /// A key that is not there is denied to those who may not know which are.
    pub(super) fn conceal(&self, error: S3Error, route: &Route) -> S3Error {
        match route {
            Route::Object(bucket, key, _)
                if error.code() == Code::NO_SUCH_KEY.name() && !self.may_list(bucket, key) =>
            {
                S3Error::new(Code::ACCESS_DENIED)
            }
            _ => error,
        }
    }
}

fn caller(permit: Permit) -> Caller {
    Caller { tenant: permit.tenant() }
}

/// Whether a request without credentials may go on to be decided: it reads an object of a public bucket.
pub(super) fn may_be_public(directory: &Directory, route: &Route, head: &Head, query: &Query) -> Result<bool, S3Error> {
    let reads = matches!(route, Route::Object(bucket, _, ObjectOperation::GetObject | ObjectOperation::HeadObject)
        if directory.public(bucket).is_some());
    if reads && query.iter().any(|(name, _)| name.starts_with("response-")) {
        return Err(S3Error::request("Request specific response headers cannot be used for anonymous GET requests."));
    }
    Ok(reads && matches!(head.method.as_str(), "GET" | "HEAD"))
}

/// The right that an operation takes. docs/OPERATIONS.md has the same table for people.
fn wanted<'a>(route: &'a Route, query: &'a Query) -> (Action, Resource<'a>) {
    use {BucketOperation as B, ObjectOperation as O};
    match route {
        Route::Service(_) => (Action::BucketList, Resource::Buckets),
        Route::Bucket(bucket, operation) => {
            let name = bucket.as_str();
            match operation {
                B::CreateBucket => (Action::BucketCreate, Resource::Bucket(name)),
                B::DeleteBucket => (Action::BucketDelete, Resource::Bucket(name)),
                B::ListObjects | B::ListObjectsV2 | B::ListObjectVersions | B::ListMultipartUploads => {
                    let prefix = query.value("prefix").unwrap_or_default();
                    (Action::ObjectList, Resource::Keys { bucket: name, prefix })
                }
                B::DeleteObjects => (Action::ObjectDelete, Resource::Bucket(name)),
                _ => (Action::BucketRead, Resource::Bucket(name)),
            }
        }
        Route::Object(bucket, key, operation) => {
            let action = match operation {
                O::GetObject
                | O::HeadObject
                | O::GetObjectAcl
                | O::GetObjectAttributes
                | O::GetObjectTagging
                | O::GetObjectRetention
                | O::GetObjectLegalHold => Action::ObjectRead,
                O::PutObject
                | O::CopyObject
                | O::CreateMultipartUpload
                | O::UploadPart
                | O::UploadPartCopy
                | O::ListParts
                | O::CompleteMultipartUpload
                | O::AbortMultipartUpload => Action::ObjectWrite,
                O::DeleteObject => Action::ObjectDelete,
            };
            (action, Resource::Object { bucket: bucket.as_str(), key: key.as_str() })
        }
    }
}

impl Request<'_> {
    /// The source of a copy is read.
    pub(super) fn check_source(&self, bucket: &BucketName, key: &Key) -> Result<(), S3Error> {
        let resource = Resource::Object { bucket: bucket.as_str(), key: key.as_str() };
        let may = self.access.may(Action::ObjectRead, resource);
        if may { Ok(()) } else { Err(S3Error::new(Code::ACCESS_DENIED)) }
    }
}

impl S3 {
    /// Opens an object to read it. What is allowed because a bucket is public is of the bucket that was made so, and not of
    /// another one that has its name now; that one is for those who have a grant there.
    pub(super) async fn open(
        &self,
        request: &Request<'_>,
        bucket: BucketName,
        key: Key,
        read_from: Option<ReadFrom>,
    ) -> Result<Found, S3Error> {
        let Access { identity, public, .. } = &request.access;
        let Some(public) = public else {
            return Ok(self.node.open(request.caller(), bucket, key, read_from).await?);
        };
        match self.node.open(request.caller(), bucket.clone(), key.clone(), read_from).await {
            Ok(found) if found.bucket() == *public => return Ok(found),
            Ok(_) | Err(MetadataError::Refused(Refusal::AccessDenied)) => {}
            Err(error) => return Err(error.into()),
        }
        let resource = Resource::Object { bucket: bucket.as_str(), key: key.as_str() };
        let own = decide(identity.as_ref(), Action::ObjectRead, resource, None);
        let own = own.ok_or_else(|| S3Error::new(Code::ACCESS_DENIED))?;
        Ok(self.node.open(caller(own), bucket, key, read_from).await?)
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::access::{Grant, Rights};
    use anvil_model::ids::TenantId;

    use super::*;
    use crate::s3::tests::head;

    /// Goal: each operation takes the right that it is documented with, and no other. Method: every operation with every
    /// single right on everything.
    #[test]
    fn every_operation_takes_one_right() {
        for (method, target, right) in [
            ("GET", "/", "bucket:list"),
            ("PUT", "/docs", "bucket:create"),
            ("DELETE", "/docs", "bucket:delete"),
            ("HEAD", "/docs", "bucket:read"),
            ("GET", "/docs?location", "bucket:read"),
            ("GET", "/docs?versioning", "bucket:read"),
            ("GET", "/docs?acl", "bucket:read"),
            ("GET", "/docs?policy", "bucket:read"),
            ("GET", "/docs", "object:list"),
            ("GET", "/docs?list-type=2&prefix=a", "object:list"),
            ("GET", "/docs?versions", "object:list"),
            ("GET", "/docs?uploads", "object:list"),
            ("POST", "/docs?delete", "object:delete"),
            ("GET", "/docs/k", "object:read"),
            ("HEAD", "/docs/k", "object:read"),
            ("GET", "/docs/k?acl", "object:read"),
            ("GET", "/docs/k?attributes", "object:read"),
            ("GET", "/docs/k?tagging", "object:read"),
            ("GET", "/docs/k?retention", "object:read"),
            ("GET", "/docs/k?legal-hold", "object:read"),
            ("PUT", "/docs/k", "object:write"),
            ("POST", "/docs/k?uploads", "object:write"),
            ("PUT", "/docs/k?partNumber=1&uploadId=u", "object:write"),
            ("GET", "/docs/k?uploadId=u", "object:write"),
            ("POST", "/docs/k?uploadId=u", "object:write"),
            ("DELETE", "/docs/k?uploadId=u", "object:write"),
            ("DELETE", "/docs/k", "object:delete"),
        ] {
            let head = head(method, target, &[]);
            let query = Query::read(head.query.as_deref()).unwrap();
            let route = Route::find(&head, &query, None).unwrap();
            for action in Action::ALL {
                let grant = Grant { action: action.text().parse().unwrap(), resource: "*".parse().unwrap() };
                let identity = Identity { tenant: TenantId(3), rights: Rights::Granted([grant].into()) };
                let access = Access::decide(&Directory::new([]), Some(identity), &route, &query);
                assert_eq!(access.is_ok(), action.text() == right, "{method} {target} with {action}");
                let tenant = access.map(|access| access.caller.tenant);
                assert!(tenant.is_err() || tenant.is_ok_and(|tenant| tenant == TenantId(3)));
            }
            let nobody = Access::decide(&Directory::new([]), None, &route, &query);
            assert_eq!(nobody.err().map(|error| error.code()), Some("AccessDenied"), "{method} {target}");
        }
    }

    #[test]
    fn a_copy_reads_its_source() {
        let grant = Grant { action: "object:*".parse().unwrap(), resource: "docs/*".parse().unwrap() };
        let identity = Identity { tenant: TenantId(3), rights: Rights::Granted([grant].into()) };
        let access = Access { identity: Some(identity), caller: Caller { tenant: TenantId(3) }, public: None };
        let head = head("PUT", "/docs/k", &[]);
        let request = Request { head: &head, query: Query::default(), access, in_host: false };
        let check = |bucket: &str| {
            let (bucket, key) = (BucketName::new(bucket).unwrap(), Key::new(b"k".to_vec()).unwrap());
            request.check_source(&bucket, &key).map_err(|error| error.code())
        };
        assert_eq!((check("docs"), check("other")), (Ok(()), Err("AccessDenied")));
    }
}
