//! The S3 API: typed requests out of heads, stories called, answers written.
//!
//! `route` says which operation a request is, `error` how everything that can go wrong is told; one file per verb
//! between them. Knows no socket and no disk. Called by the protocols through [`Service`].
//!
//! **Invariants**
//! - Nothing of a body is read before its head is authenticated.
//! - What changes what is stored is honoured or refused, never passed over: `route::SUBRESOURCES`, `headers::HONOURED`.

mod access;
mod attributes;
mod bucket;
mod checksum;
mod conditions;
mod copy;
mod date;
mod delete;
mod encoding;
mod error;
pub(crate) mod fuzz;
mod get;
mod headers;
mod host;
mod list;
mod multipart;
mod put;
mod query;
mod range;
mod route;
mod settings;
mod uploads;
mod versions;
mod xml;

use std::borrow::Cow;
use std::sync::Arc;

use anvil_model::access::Identity;
use anvil_model::io::World as _;
use anvil_model::object::{BucketName, Key};
use anvil_node::body::{Body as _, Trailer, digest_now};
use anvil_node::get::Reader;
use anvil_node::multipart::UploadName;
use anvil_node::{Caller, Node};
use anvil_runtime::Core;

use crate::access::AccessKeeper;
use crate::admission::Admission;
use crate::auth::body::VerifiedBody;
use crate::auth::{AuthError, Authenticated, Authenticator, Payload};
use crate::http::{Head, Incoming, Outgoing, Response, Service};
use access::Access;
use error::{Code, S3Error};
pub use host::Domains;
use query::Query;
use route::{BucketOperation, ObjectOperation, Route, ServiceOperation};

/// The S3 API of one core.
pub struct S3 {
    node: Node<Core>,
    authenticator: Arc<Authenticator>,
    admission: Arc<Admission>,
    keeper: Arc<AccessKeeper>,
    domains: Arc<Domains>,
    /// Names the node to whoever reads a client's log.
    host_id: Arc<str>,
}

/// A request that is believed, without its body.
struct Request<'a> {
    head: &'a Head,
    query: Query,
    access: Access,
    /// The bucket stands in the host and not in the path.
    in_host: bool,
}

type Answer = Result<Response, S3Error>;

impl S3 {
    /// The API on this core. `host_id` stands in every error and names the node; it is the same on all cores.
    #[must_use]
    pub fn new(
        node: Node<Core>,
        authenticator: Arc<Authenticator>,
        admission: Arc<Admission>,
        keeper: Arc<AccessKeeper>,
        domains: Arc<Domains>,
        host_id: Arc<str>,
    ) -> Self {
        Self { node, authenticator, admission, keeper, domains, host_id }
    }

    async fn answer<I: Incoming>(&self, head: &Head, incoming: &mut I) -> Answer {
        let (identity, payload) = self.admit(head)?;
        let query = Query::read(head.query.as_deref())?;
        let head = &*headers::with_query_headers(head, &query)?;
        let in_host = self.domains.bucket(head);
        let route = Route::find(head, &query, in_host.as_deref())?;
        let access = Access::decide(self.authenticator.directory(), identity, &route, &query)?;
        headers::refuse_unknown(head, route.writes(), route.own_headers())?;
        if route.writes() && !route.takes_conditions() {
            conditions::refuse(head)?;
        }
        let request = Request { head, query, access, in_host: in_host.is_some() };
        request.check_expected_owner()?;
        let answer = self.dispatch(&request, &route, payload, incoming).await;
        answer.map_err(|error| request.access.conceal(error, &route).about(&route))
    }

    /// Finds out who sends a request, if anybody, and whether too many come from there.
    fn admit(&self, head: &Head) -> Result<(Option<Identity>, Payload), S3Error> {
        let world = self.node.world();
        match self.authenticator.authenticate(head, world.wall_clock()) {
            Ok(Authenticated { identity, payload, access_key }) => {
                self.admission.app(&access_key, world.now())?;
                Ok((Some(identity), payload))
            }
            Err(AuthError::Anonymous) if self.is_for_everybody(head)? => Ok((None, Payload::Unsigned)),
            Err(error) => {
                // Browsers ask by OPTIONS what they may, without credentials and before each request.
                if error.is_of_nobody() && head.method != "OPTIONS" {
                    self.admission.anonymous(head, world.now())?;
                }
                Err(error.into())
            }
        }
    }

    /// Whether a request without credentials reads what everybody may. One that cannot be read is for nobody.
    fn is_for_everybody(&self, head: &Head) -> Result<bool, S3Error> {
        let Ok(query) = Query::read(head.query.as_deref()) else { return Ok(false) };
        let Ok(route) = Route::find(head, &query, self.domains.bucket(head).as_deref()) else { return Ok(false) };
        access::may_be_public(self.authenticator.directory(), &route, head, &query)
    }

    async fn dispatch<I: Incoming>(
        &self,
        request: &Request<'_>,
        route: &Route,
        payload: Payload,
        incoming: &mut I,
    ) -> Answer {
        match route.clone() {
            Route::Service(ServiceOperation::ListBuckets) => self.list_buckets(request).await,
            Route::Bucket(bucket, operation) => {
                self.dispatch_bucket(request, bucket, operation, payload, incoming).await
            }
            Route::Object(bucket, key, operation) => {
                self.dispatch_object(request, bucket, key, operation, payload, incoming).await
            }
        }
    }

    async fn dispatch_bucket<I: Incoming>(
        &self,
        request: &Request<'_>,
        bucket: BucketName,
        operation: BucketOperation,
        payload: Payload,
        incoming: &mut I,
    ) -> Answer {
        match operation {
            BucketOperation::CreateBucket => self.create_bucket(request, bucket, payload, incoming).await,
            BucketOperation::HeadBucket => self.head_bucket(request, bucket).await,
            BucketOperation::DeleteBucket => self.delete_bucket(request, bucket).await,
            BucketOperation::GetBucketLocation => self.get_bucket_location(request, bucket).await,
            BucketOperation::GetBucketVersioning => self.get_bucket_versioning(request, bucket).await,
            BucketOperation::GetBucketAcl => self.get_bucket_acl(request, bucket).await,
            BucketOperation::ListObjects => self.list_objects(request, bucket).await,
            BucketOperation::ListObjectsV2 => self.list_objects_v2(request, bucket).await,
            BucketOperation::ListObjectVersions => self.list_object_versions(request, bucket).await,
            BucketOperation::ListMultipartUploads => self.list_uploads(request, bucket).await,
            BucketOperation::DeleteObjects => self.delete_objects(request, bucket, payload, incoming).await,
            setting => self.get_bucket_setting(request, bucket, setting).await,
        }
    }

    async fn dispatch_object<I: Incoming>(
        &self,
        request: &Request<'_>,
        bucket: BucketName,
        key: Key,
        operation: ObjectOperation,
        payload: Payload,
        incoming: &mut I,
    ) -> Answer {
        match operation {
            ObjectOperation::PutObject => self.put_object(request, bucket, key, payload, incoming).await,
            ObjectOperation::GetObject => self.get_object(request, bucket, key).await,
            ObjectOperation::HeadObject => self.head_object(request, bucket, key).await,
            ObjectOperation::DeleteObject => self.delete_object(request, bucket, key).await,
            ObjectOperation::GetObjectAcl => self.get_object_acl(request, bucket, key).await,
            ObjectOperation::GetObjectAttributes => self.get_object_attributes(request, bucket, key).await,
            ObjectOperation::GetObjectTagging => self.get_object_tagging(request, bucket, key).await,
            ObjectOperation::GetObjectRetention | ObjectOperation::GetObjectLegalHold => {
                self.get_object_lock(request, bucket, key).await
            }
            ObjectOperation::CreateMultipartUpload => self.create_upload(request, bucket, key).await,
            ObjectOperation::UploadPart => {
                let number = route::part_number(&request.query)?;
                self.upload_part(request, request.upload(bucket, key)?, number, payload, incoming).await
            }
            ObjectOperation::CopyObject => self.copy_object(request, bucket, key, payload, incoming).await,
            ObjectOperation::UploadPartCopy => {
                let number = route::part_number(&request.query)?;
                self.copy_part(request, request.upload(bucket, key)?, number, payload, incoming).await
            }
            ObjectOperation::ListParts => self.list_parts(request, request.upload(bucket, key)?).await,
            ObjectOperation::CompleteMultipartUpload => {
                self.complete_upload(request, request.upload(bucket, key)?, payload, incoming).await
            }
            ObjectOperation::AbortMultipartUpload => self.abort_upload(request.upload(bucket, key)?).await,
        }
    }
}

impl Request<'_> {
    /// In whose name the stories run.
    fn caller(&self) -> Caller {
        self.access.caller
    }

    fn upload(&self, bucket: BucketName, key: Key) -> Result<UploadName, S3Error> {
        Ok(UploadName { caller: self.caller(), bucket, key, upload: route::upload_id(&self.query)? })
    }

    /// Reads a body that is a document of at most `bytes_max` bytes, verified against the signature and `Content-MD5`.
    /// Also gives what came behind it.
    async fn raw_document<I: Incoming>(
        &self,
        payload: Payload,
        incoming: &mut I,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, Trailer), S3Error> {
        let mut body = VerifiedBody::new(incoming, payload)?;
        if body.length() > bytes_max as u64 {
            return Err(
                S3Error::new(Code::MAX_MESSAGE_LENGTH_EXCEEDED).with("MaxMessageLengthBytes", bytes_max.to_string())
            );
        }
        let document = body.collect().await?;
        digest_now(&mut body, 0, &document)?;
        let trailer = body.finish().await?;
        checksum::verify_md5(self.head, &document)?;
        Ok((document, trailer))
    }

    /// As [`Self::raw_document`], for requests whose checksums are of the document and not of an object.
    async fn document<I: Incoming>(
        &self,
        payload: Payload,
        incoming: &mut I,
        bytes_max: usize,
    ) -> Result<Vec<u8>, S3Error> {
        let (document, trailer) = self.raw_document(payload, incoming, bytes_max).await?;
        checksum::verify_checksums(self.head, &trailer, &document)?;
        Ok(document)
    }

    /// A request reaches the buckets of one tenant only, so an expectation holds when it names that one.
    fn check_expected_owner(&self) -> Result<(), S3Error> {
        match headers::single(self.head, "x-amz-expected-bucket-owner")? {
            Some(owner) if owner != owner_id(self.caller()) => Err(S3Error::new(Code::ACCESS_DENIED)),
            _ => Ok(()),
        }
    }
}

impl Service for S3 {
    type Pieces = Reader<Core>;

    async fn call<I: Incoming>(&self, head: &Head, body: &mut I) -> Response {
        let error = match self.answer(head, body).await {
            Ok(response) => return response,
            Err(error) => error,
        };
        log(head, self.operation(head), &error);
        error.response(head, &self.host_id)
    }

    fn refusal(&self, status: u16, code: &str, message: &str, request_id: &str) -> Response {
        error::refusal(status, code, message, request_id, &self.host_id)
    }

    fn operation(&self, head: &Head) -> &'static str {
        let query = Query::read(head.query.as_deref());
        match query.and_then(|query| Route::find(head, &query, self.domains.bucket(head).as_deref())) {
            Ok(route) => route.name(),
            Err(error) if error.code() == "NotImplemented" => "NotImplemented",
            Err(_) => "Other",
        }
    }
}

/// The one line about a request that failed: ours to mend from 500 on, the client's below.
fn log(head: &Head, operation: &'static str, error: &S3Error) {
    let (request_id, code, cause) = (head.request_id.as_str(), error.code(), error.cause());
    if error.status() >= 500 && error.status() != 501 {
        tracing::warn!(request_id, operation, code, cause, "{}", error.message());
    } else {
        tracing::debug!(request_id, operation, code, "{}", error.message());
    }
}

/// A tenant as S3 names an owner: 64 hexadecimal digits.
fn owner_id(caller: Caller) -> String {
    format!("{:064x}", caller.tenant.0)
}

fn ok(headers: Vec<(Cow<'static, str>, String)>, body: Outgoing) -> Response {
    Response { status: 200, headers, body }
}

fn no_content() -> Response {
    Response { status: 204, headers: Vec::new(), body: Outgoing::Empty }
}

fn xml_response(document: Vec<u8>) -> Response {
    ok(vec![("Content-Type".into(), "application/xml".to_owned())], Outgoing::Bytes(document))
}

#[cfg(test)]
mod tests {
    use anvil_model::ids::TenantId;
    use futures_util::FutureExt as _;

    use super::*;

    /// A head as a protocol makes it; `target` is path and query.
    pub(crate) fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Head {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Head {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect(),
            peer: ([127, 0, 0, 1], 1).into(),
            request_id: "request-1".to_owned(),
        }
    }

    /// A body of which everything has come.
    struct Received(Vec<u8>);

    impl Incoming for Received {
        fn length(&self) -> Option<u64> {
            Some(self.0.len() as u64)
        }

        async fn fill(
            &mut self,
            _: anvil_runtime::Buffer,
            _: std::ops::Range<usize>,
        ) -> (Result<usize, crate::http::ReceiveError>, anvil_runtime::Buffer) {
            unreachable!("a document is read, not filled")
        }

        async fn read(&mut self, into: &mut Vec<u8>, max: usize) -> Result<usize, crate::http::ReceiveError> {
            let count = max.min(self.0.len()).min(3);
            into.extend(self.0.drain(..count));
            Ok(count)
        }

        async fn comes_soon(&mut self) -> bool {
            true
        }
    }

    #[test]
    fn a_document_is_bounded_and_held_to_what_its_head_promises() {
        let read = |headers: &[(&str, &str)], payload, bytes_max| {
            let head = head("POST", "/abc?delete", headers);
            let request =
                Request { head: &head, query: Query::default(), access: Access::all(TenantId(1)), in_host: false };
            let mut incoming = Received(b"123456789".to_vec());
            let document = request.document(payload, &mut incoming, bytes_max).now_or_never().unwrap();
            (document.map_err(|error| error.code()), incoming.0.len())
        };
        let signed = |bytes: &[u8]| Payload::Signed(anvil_digest::sha256(bytes));
        assert_eq!(read(&[], Payload::Unsigned, 9), (Ok(b"123456789".to_vec()), 0));
        assert_eq!(read(&[], signed(b"123456789"), 9).0, Ok(b"123456789".to_vec()));
        assert_eq!(read(&[], signed(b"something else"), 9).0, Err("XAmzContentSHA256Mismatch"));
        assert_eq!(read(&[], Payload::Unsigned, 8), (Err("MaxMessageLengthExceeded"), 9));
        let wrong_md5 = [("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")];
        assert_eq!(read(&wrong_md5, Payload::Unsigned, 9).0, Err("BadDigest"));
        assert_eq!(read(&[("x-amz-checksum-crc32", "AAECAw==")], Payload::Unsigned, 9).0, Err("BadDigest"));
    }

    #[test]
    fn every_operation_has_its_own_metrics() {
        for name in ServiceOperation::NAMES.iter().chain(BucketOperation::NAMES).chain(ObjectOperation::NAMES) {
            assert!(crate::telemetry::OPERATIONS.contains(name), "{name}");
        }
    }

    #[test]
    fn an_expected_owner_is_the_caller() {
        let check = |owner: &str| {
            let head = head("GET", "/abc", &[("x-amz-expected-bucket-owner", owner)]);
            let request =
                Request { head: &head, query: Query::default(), access: Access::all(TenantId(10)), in_host: false };
            request.check_expected_owner().map_err(|error| error.code())
        };
        assert_eq!(check(&format!("{}a", "0".repeat(63))), Ok(()));
        assert_eq!(check("123456789012"), Err("AccessDenied"));
    }
}
