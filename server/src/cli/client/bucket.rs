//! `anvil bucket`.

use anvil_proto::v1;
use clap::{ArgAction, Subcommand};
use serde_json::{Value, json};

use super::session::{Session, run_session};
use super::{Common, time_text};
use crate::cli::Failure;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BucketCommand {
    /// Makes a bucket
    Create {
        /// Its name
        #[arg(value_name = "NAME", value_parser = bucket_name)]
        name: String,
        /// Its region, which is that of the node
        #[arg(value_name = "REGION", default_value = "")]
        region: String,
        #[command(flatten)]
        common: Common,
    },
    /// Lists the buckets
    Ls(Common),
    /// Deletes an empty bucket
    Rm {
        /// Its name
        #[arg(value_name = "NAME", value_parser = bucket_name)]
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Lets everybody read the objects of a bucket, or not any more
    SetPublic {
        /// Its name
        #[arg(value_name = "NAME", value_parser = bucket_name)]
        name: String,
        /// Whether everybody may
        #[arg(long, action = ArgAction::Set, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
        allow: bool,
        #[command(flatten)]
        common: Common,
    },
}

/// `s3://NAME` means the same as `NAME`.
#[expect(clippy::unnecessary_wraps, reason = "as clap takes it")]
fn bucket_name(text: &str) -> Result<String, String> {
    Ok(text.strip_prefix("s3://").unwrap_or(text).trim_end_matches('/').to_owned())
}

pub(in crate::cli) fn run(command: BucketCommand) -> Result<(), Failure> {
    match command {
        BucketCommand::Create { name, region, common } => run_session(&common, async |session: &Session| {
            let request = v1::CreateBucketRequest { bucket_name: name, region };
            let answer: v1::CreateBucketResponse =
                session.line().ask_once("BucketService/CreateBucket", &request).await?;
            let bucket = answer.bucket.unwrap_or_default();
            common.tell(|| to_json(&bucket), || format!("bucket {} is there\n", bucket.name))
        }),
        BucketCommand::Ls(common) => run_session(&common, async |session: &Session| {
            let buckets = all(session).await?;
            let line = |bucket: &v1::Bucket| format!("{}  {}\n", time_text(bucket.created_at), bucket.name);
            common.tell(|| buckets.iter().map(to_json).collect(), || buckets.iter().map(line).collect())
        }),
        BucketCommand::Rm { name, common } => run_session(&common, async |session: &Session| {
            let request = v1::DeleteBucketRequest { bucket_name: name.clone() };
            let _: v1::DeleteBucketResponse = session.line().ask_once("BucketService/DeleteBucket", &request).await?;
            common.tell(|| json!({ "name": name }), || format!("bucket {name} is gone\n"))
        }),
        BucketCommand::SetPublic { name, allow, common } => run_session(&common, async |session: &Session| {
            let request = v1::SetPublicAccessRequest { bucket_name: name.clone(), allow };
            let _: v1::SetPublicAccessResponse = session.line().ask("AuthService/SetPublicAccess", &request).await?;
            let who = if allow { "everybody" } else { "apps alone" };
            common.tell(|| json!({ "name": name, "public": allow }), || format!("bucket {name}: read by {who}\n"))
        }),
    }
}

async fn all(session: &Session) -> Result<Vec<v1::Bucket>, Failure> {
    let (mut buckets, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListBucketsRequest { page_size: 0, page_token };
        let page: v1::ListBucketsResponse = session.line().ask("BucketService/ListBuckets", &request).await?;
        buckets.extend(page.buckets);
        if page.next_page_token.is_empty() {
            return Ok(buckets);
        }
        page_token = page.next_page_token;
    }
}

fn to_json(bucket: &v1::Bucket) -> Value {
    json!({
        "name": bucket.name,
        "region": bucket.region,
        "created_at": time_text(bucket.created_at),
        "storage_class": bucket.storage_class,
    })
}
