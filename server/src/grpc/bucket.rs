//! `anvil.v1.BucketService`.

use anvil_model::access::{Action, Resource};
use anvil_model::limits::PAGE_KEYS_MAX;
use anvil_node::bucket::BucketInfo;
use anvil_proto::v1;

use super::access::Asker;
use super::call::{Call, Wire};
use super::methods::methods;
use super::services::Services;
use super::status::{Code, Status};
use super::{auth, words};

methods! {
    "anvil.v1.BucketService":
    CreateBucket,
    GetBucket,
    ListBuckets,
    DeleteBucket,
    GetBucketPolicy,
    PutBucketPolicy,
}

impl Method {
    pub(super) async fn call<W: Wire>(
        self,
        services: &Services,
        asker: Asker,
        call: &mut Call<'_, W>,
    ) -> Result<(), Status> {
        let node = &services.node;
        match self {
            Self::CreateBucket => {
                let v1::CreateBucketRequest { bucket_name, region } = call.only_message().await?;
                let caller = asker.may(Action::BucketCreate, Resource::Bucket(&bucket_name))?;
                let name = words::bucket_name(&bucket_name)?;
                if !region.is_empty() && region != node.region() {
                    let message = format!("this node makes buckets in {} and nowhere else", node.region());
                    return Err(Status::new(Code::InvalidArgument, "WRONG_REGION", message).about("region", region));
                }
                node.create_bucket(caller, name.clone()).await?;
                let bucket = Some(told(node.head_bucket(caller, name).await?));
                call.answer(&v1::CreateBucketResponse { bucket }).await
            }
            Self::GetBucket => {
                let v1::GetBucketRequest { bucket_name } = call.only_message().await?;
                let caller = asker.may(Action::BucketRead, Resource::Bucket(&bucket_name))?;
                let bucket = Some(told(node.head_bucket(caller, words::bucket_name(&bucket_name)?).await?));
                call.answer(&v1::GetBucketResponse { bucket }).await
            }
            Self::ListBuckets => {
                let v1::ListBucketsRequest { page_size, page_token } = call.only_message().await?;
                let caller = asker.may(Action::BucketList, Resource::Buckets)?;
                let after = words::read_page_token(&page_token)?.and_then(|name| String::from_utf8(name).ok());
                let max = words::page_size(page_size, PAGE_KEYS_MAX);
                let mut found = node.list_buckets(caller, after, max + 1).await?;
                let more = found.len() > max;
                found.truncate(max);
                let last = found.last().filter(|_| more).map(|bucket| bucket.name.as_str().as_bytes());
                let next_page_token = last.map(words::page_token).unwrap_or_default();
                let buckets = found.into_iter().map(told).collect();
                call.answer(&v1::ListBucketsResponse { buckets, next_page_token }).await
            }
            Self::DeleteBucket => {
                let v1::DeleteBucketRequest { bucket_name } = call.only_message().await?;
                let caller = asker.may(Action::BucketDelete, Resource::Bucket(&bucket_name))?;
                node.delete_bucket(caller, words::bucket_name(&bucket_name)?).await?;
                call.answer(&v1::DeleteBucketResponse {}).await
            }
            Self::GetBucketPolicy => {
                let v1::GetBucketPolicyRequest { bucket_name } = call.only_message().await?;
                let caller = asker.may(Action::BucketRead, Resource::Bucket(&bucket_name))?;
                let id = node.head_bucket(caller, words::bucket_name(&bucket_name)?).await?.id;
                let public_read = services.keeper.known()?.state.public.contains_key(&id);
                let policy = Some(v1::BucketPolicy { public_read });
                call.answer(&v1::GetBucketPolicyResponse { policy }).await
            }
            Self::PutBucketPolicy => {
                let v1::PutBucketPolicyRequest { bucket_name, policy } = call.only_message().await?;
                let policy =
                    policy.ok_or_else(|| Status::invalid("a bucket gets a policy, and the request has none"))?;
                auth::set_public(services, &asker, call.head, &bucket_name, policy.public_read).await?;
                call.answer(&v1::PutBucketPolicyResponse {}).await
            }
        }
    }
}

/// A bucket as it is told.
pub(super) fn told(info: BucketInfo) -> v1::Bucket {
    v1::Bucket {
        name: info.name.as_str().to_owned(),
        region: info.region,
        storage_class: info.storage_class.to_string(),
        created_at: words::timestamp(info.created_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_service_is_served() {
        let declared = super::super::methods::declared(include_str!("../../../proto/anvil/v1/bucket.proto"));
        assert_eq!(declared, Method::NAMES);
    }
}
