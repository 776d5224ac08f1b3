//! Uploads in parts: the same as those of S3, so that one protocol may finish what the other one began.

use anvil_model::access::{Action, Resource};
use anvil_model::ids::UploadId;
use anvil_model::limits::{PAGE_KEYS_MAX, PART_BYTES_MAX, PART_NUMBER_MAX};
use anvil_model::object::{ChecksumAlgorithm, ChecksumType};
use anvil_node::multipart::{CreateUpload, ListUploads, PartInfo, PartName, UploadInfo, UploadName};
use anvil_node::put::{Expected, Stored};
use anvil_proto::v1;

use super::access::Asker;
use super::call::{Call, Wire};
use super::incoming::{Incoming, spec};
use super::object::{Allowed, allowed, too_large};
use super::services::Services;
use super::status::{Code, Status};
use super::words;

pub(super) async fn initiate<W: Wire>(
    services: &Services,
    asker: &Asker,
    call: &mut Call<'_, W>,
) -> Result<(), Status> {
    let request: v1::InitiateMultipartUploadRequest = call.only_message().await?;
    let Allowed { caller, bucket, key } =
        allowed(asker, Action::ObjectWrite, &request.bucket_name, &request.object_key)?;
    let create = CreateUpload {
        caller,
        bucket,
        key,
        headers: words::headers(request.metadata)?,
        checksum: checksum(request.checksum_algorithm, request.checksum_type)?,
        storage_class: words::storage_class(&request.storage_class, services.node.classes())?,
    };
    let upload = services.node.create_upload(create).await?;
    call.answer(&v1::InitiateMultipartUploadResponse { upload_id: upload.to_string() }).await
}

/// The checksum of an upload to be. Which algorithms and types go together is the story's to say.
fn checksum(algorithm: i32, of: i32) -> Result<Option<(ChecksumAlgorithm, ChecksumType)>, Status> {
    match (words::algorithm(algorithm)?, words::checksum_type(of)?) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let message = "a checksum_type goes with a checksum_algorithm";
            Err(Status::new(Code::InvalidArgument, "INVALID_CHECKSUM", message))
        }
        (Some(algorithm), of) => {
            let usual = match algorithm {
                ChecksumAlgorithm::Crc64Nvme => ChecksumType::FullObject,
                _ => ChecksumType::Composite,
            };
            Ok(Some((algorithm, of.unwrap_or(usual))))
        }
    }
}

/// The upload that a message names.
pub(super) fn named(asker: &Asker, bucket: &str, key: &str, upload: &str) -> Result<UploadName, Status> {
    let Allowed { caller, bucket, key } = allowed(asker, Action::ObjectWrite, bucket, key)?;
    let upload: UploadId = upload.parse().map_err(|_| {
        Status::new(Code::NotFound, "NO_SUCH_UPLOAD", "the upload does not exist").about("upload_id", upload)
    })?;
    Ok(UploadName { caller, bucket, key, upload })
}

fn part_number(number: u32) -> Result<u16, Status> {
    let fits = u16::try_from(number).ok().filter(|number| (1..=PART_NUMBER_MAX).contains(number));
    fits.ok_or_else(|| {
        let message = format!("parts have numbers from 1 to {PART_NUMBER_MAX}");
        Status::new(Code::InvalidArgument, "INVALID_PART", message).about("part_number", number)
    })
}

pub(super) async fn upload_part<W: Wire>(
    services: &Services,
    asker: &Asker,
    call: &mut Call<'_, W>,
) -> Result<(), Status> {
    let spec = spec::<v1::UploadPartRequest, W>(call).await?;
    let upload = named(asker, &spec.bucket_name, &spec.object_key, &spec.upload_id)?;
    let number = part_number(spec.part_number)?;
    if spec.size > PART_BYTES_MAX {
        return Err(too_large("a part has at most 5 GiB"));
    }
    // The checksum of a part is of its upload's algorithm, whatever the finish brings.
    let page = services.node.list_parts(upload.clone(), PART_NUMBER_MAX, 1).await?;
    let algorithm = page.checksum.map(|(algorithm, _)| algorithm);
    let expected = Expected { algorithm, ..Expected::default() };
    let mut body = Incoming::<W, v1::UploadPartRequest>::new(call, spec.size, algorithm);
    let stored = services.node.put_part(upload, number, expected, &mut body).await?;
    let Stored { etag, checksum, size } = stored;
    let checksum = Some(words::told_checksum(&checksum));
    call.answer(&v1::UploadPartResponse { etag: etag.0, size, checksum }).await
}

pub(super) async fn list_parts<W: Wire>(
    services: &Services,
    asker: &Asker,
    call: &mut Call<'_, W>,
) -> Result<(), Status> {
    let request: v1::ListPartsRequest = call.only_message().await?;
    let upload = named(asker, &request.bucket_name, &request.object_key, &request.upload_id)?;
    let after = match words::read_page_token(&request.page_token)?.as_deref() {
        None => 0,
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        Some(_) => return Err(Status::invalid("the page_token is of another list")),
    };
    let max = words::page_size(request.page_size, PAGE_KEYS_MAX);
    let page = services.node.list_parts(upload, after, max).await?;
    let last = page.parts.last().filter(|_| page.more);
    let next_page_token = last.map(|part| words::page_token(&part.number.to_be_bytes())).unwrap_or_default();
    let parts = page.parts.iter().map(told_part).collect();
    call.answer(&v1::ListPartsResponse { parts, next_page_token }).await
}

fn told_part(part: &PartInfo) -> v1::UploadedPart {
    v1::UploadedPart {
        part_number: part.number.into(),
        etag: part.etag.0.clone(),
        checksum: Some(words::told_checksum(&part.checksum)),
        size: part.size,
        last_modified: words::timestamp(part.last_modified),
    }
}

pub(super) async fn list_uploads<W: Wire>(
    services: &Services,
    asker: &Asker,
    call: &mut Call<'_, W>,
) -> Result<(), Status> {
    let request: v1::ListMultipartUploadsRequest = call.only_message().await?;
    let (bucket, prefix) = (request.bucket_name.as_str(), request.prefix.as_str());
    let caller = asker.may(Action::ObjectList, Resource::Keys { bucket, prefix })?;
    let list = ListUploads {
        prefix: request.prefix.clone().into_bytes(),
        delimiter: Vec::new(),
        after: words::read_page_token(&request.page_token)?.as_deref().map(read_position).transpose()?,
        max: words::page_size(request.page_size, PAGE_KEYS_MAX),
    };
    let page = services.node.list_uploads(caller, words::bucket_name(bucket)?, list).await?;
    let next_page_token = page.next.map(|(key, upload)| words::page_token(&position(key, upload))).unwrap_or_default();
    let uploads = page.uploads.into_iter().map(told_upload).collect();
    call.answer(&v1::ListMultipartUploadsResponse { uploads, next_page_token }).await
}

fn told_upload(upload: UploadInfo) -> v1::MultipartUpload {
    v1::MultipartUpload {
        object_key: upload.key,
        upload_id: upload.upload.to_string(),
        initiated_at: words::timestamp(upload.initiated_at),
        storage_class: upload.storage_class.to_string(),
    }
}

/// The upload's id stands first: keys may hold any byte.
fn position(key: Vec<u8>, upload: Option<UploadId>) -> Vec<u8> {
    [upload.map_or(String::new(), |upload| upload.to_string()).into_bytes(), vec![b'/'], key].concat()
}

fn read_position(position: &[u8]) -> Result<(Vec<u8>, Option<UploadId>), Status> {
    let wrong = || Status::invalid("the page_token is of another list");
    let slash = position.iter().position(|&byte| byte == b'/').ok_or_else(wrong)?;
    let (upload, key) = (&position[..slash], position[slash + 1..].to_vec());
    if upload.is_empty() {
        return Ok((key, None));
    }
    let upload = std::str::from_utf8(upload).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    Ok((key, Some(upload)))
}

pub(super) async fn complete<W: Wire>(
    services: &Services,
    asker: &Asker,
    call: &mut Call<'_, W>,
) -> Result<(), Status> {
    let request: v1::CompleteMultipartUploadRequest = call.only_message().await?;
    let upload = named(asker, &request.bucket_name, &request.object_key, &request.upload_id)?;
    if request.parts.is_empty() || request.parts.len() > usize::from(PART_NUMBER_MAX) {
        return Err(Status::invalid(format!("an object is made of 1 to {PART_NUMBER_MAX} parts")));
    }
    let parts = request.parts.into_iter().map(|part| {
        let (number, etag) = (part_number(part.part_number)?, words::etag(&part.etag));
        Ok(PartName { number, etag, checksum: words::checksum(part.checksum)? })
    });
    let parts = parts.collect::<Result<Vec<_>, Status>>()?;
    let (checksum, conditions) = (words::checksum(request.checksum)?, words::write_conditions(request.preconditions)?);
    let (stored, written) = services.node.complete_upload(upload, parts, checksum, conditions).await?;
    let Stored { etag, checksum, size } = stored;
    call.answer(&v1::CompleteMultipartUploadResponse {
        etag: etag.0,
        size,
        checksum: Some(words::told_checksum(&checksum)),
        generation: written.generation.0,
        last_modified: words::timestamp(written.last_modified),
    })
    .await
}

pub(super) async fn abort<W: Wire>(services: &Services, asker: &Asker, call: &mut Call<'_, W>) -> Result<(), Status> {
    let request: v1::AbortMultipartUploadRequest = call.only_message().await?;
    let upload = named(asker, &request.bucket_name, &request.object_key, &request.upload_id)?;
    services.node.abort_upload(upload).await?;
    call.answer(&v1::AbortMultipartUploadResponse {}).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_among_uploads_is_read_back() {
        for (key, upload) in [("a/b", Some(UploadId(7))), ("a", None), ("/", Some(UploadId(u128::MAX)))] {
            let key = key.as_bytes().to_vec();
            assert_eq!(read_position(&position(key.clone(), upload)).unwrap(), (key, upload));
        }
        assert!(read_position(b"x/a").is_err() && read_position(b"a").is_err());
    }
}
