//! What the end-to-end tests share: a real node in a process of its own, a small S3 client, and the ways to the real
//! clients. Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod clients;
pub mod command;
pub mod content;
pub mod ledger;
pub mod node;
pub mod postgres;
pub mod relay;
pub mod s3;
pub mod tree;
