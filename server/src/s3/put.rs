//! PutObject.

use anvil_model::limits::PART_BYTES_MAX;
use anvil_model::object::{BucketName, Checksum, Key};
use anvil_node::body::Body as _;
use anvil_node::put::{PutObject, Stored};

use super::error::{Code, S3Error};
use super::{Answer, Request, S3, checksum, conditions, headers, ok};
use crate::auth::Payload;
use crate::auth::body::VerifiedBody;
use crate::http::{Head, Incoming, Outgoing, Response};

impl S3 {
    pub(super) async fn put_object<I: Incoming>(
        &self,
        request: &Request<'_>,
        bucket: BucketName,
        key: Key,
        payload: Payload,
        incoming: &mut I,
    ) -> Answer {
        let put = PutObject {
            caller: request.caller(),
            bucket,
            key,
            headers: headers::of_object(request.head)?,
            expected: headers::expected(request.head, trailing_checksum(&payload))?,
            conditions: conditions::of_write(request.head)?,
            storage_class: headers::storage_class(request.head, self.node.classes())?,
        };
        let mut body = object_body(request.head, payload, incoming)?;
        let (stored, _) = self.node.put_object(put, &mut body).await?;
        Ok(stored_response(&stored))
    }
}

/// The body of a request that stores bytes: its length is known and within the limits.
pub(super) fn object_body<'a, I: Incoming>(
    head: &Head,
    payload: Payload,
    incoming: &'a mut I,
) -> Result<VerifiedBody<'a, I>, S3Error> {
    let framed = matches!(payload, Payload::Streaming(_));
    let declared = head.headers.iter().any(|(name, _)| name == "content-length");
    if !framed && !declared {
        return Err(S3Error::new(Code::MISSING_CONTENT_LENGTH));
    }
    let body = VerifiedBody::new(incoming, payload)?;
    if body.length() > PART_BYTES_MAX {
        return Err(S3Error::entity_too_large(body.length()));
    }
    Ok(body)
}

/// The checksum that the body's trailer will bring.
pub(super) fn trailing_checksum(payload: &Payload) -> Option<anvil_model::object::ChecksumAlgorithm> {
    match payload {
        Payload::Streaming(streaming) => streaming.trailing_checksum(),
        _ => None,
    }
}

/// The answer to a PUT of an object or part.
pub(super) fn stored_response(stored: &Stored) -> Response {
    let Checksum { algorithm, of, .. } = stored.checksum;
    ok(
        vec![
            ("ETag".into(), format!("\"{}\"", stored.etag)),
            (checksum::header_name(algorithm).into(), checksum::text(&stored.checksum, None)),
            ("x-amz-checksum-type".into(), checksum::type_name(of).to_owned()),
        ],
        Outgoing::Empty,
    )
}
