//! The test-suite of [`Metadata`](super::Metadata), written against the trait alone: every implementation passes it unchanged, behind a
//! line that is good and behind one that loses, delays and repeats ([`Unreliable`]).
//!
//! A crate that implements the trait writes [`metadata_suite!`](crate::metadata_suite) into a test module. Every case
//! begins with metadata that holds nothing.

pub mod buckets;
pub mod copies;
pub mod histories;
mod kit;
pub mod lists;
pub mod objects;
pub mod quotas;
pub mod uploads;

pub use kit::{Caller, Dice, Logless, Unreliable};

/// Makes one test per case, plain and unreliable. `$run` is a function that takes a case, an
/// `impl AsyncFnOnce(Metadata)`, and runs it to its end on fresh metadata.
#[macro_export]
macro_rules! metadata_suite {
    ($run:path) => {
        $crate::metadata_suite!(@cases $run;
            buckets: names_are_unique_among_live_buckets, another_tenants_bucket_is_denied, lists_are_in_order_of_names,
                a_bucket_that_holds_anything_is_not_deleted, a_stale_configuration_is_refused,
                a_deleted_bucket_takes_no_write, deletion_and_writes_exclude_each_other,
                a_configuration_counts_from_its_commit_on, a_closed_bucket_is_only_emptied;
            objects: a_version_reads_as_it_was_written, an_overwritten_version_is_garbage, a_deleted_key_is_gone,
                conditions_are_checked_under_the_lock, of_many_conditional_writes_one_wins,
                writes_to_one_key_keep_their_order, every_row_has_its_own_verdict, a_repeated_write_answers_as_before,
                generations_and_times_only_grow, a_blob_is_claimed_once, a_closed_writer_commits_nothing,
                the_sweep_and_a_commit_exclude_each_other, blobs_are_read_by_id,
                garbage_is_forgotten_when_it_is_gone, a_shard_is_moved_from_where_it_was,
                a_narrow_blob_is_spread_anew, blobs_are_found_by_disk;
            uploads: an_object_of_parts_is_read_by_ranges, a_wrong_list_is_refused, a_completion_is_repeated_safely,
                the_last_part_of_a_number_wins, an_aborted_upload_leaves_garbage, an_upload_is_named_by_all_three,
                checksums_follow_the_upload, completion_honours_conditions, completions_and_parts_exclude_each_other,
                ten_thousand_parts_are_read_a_page_at_a_time, parts_are_listed_by_number,
                parts_of_an_object_are_found_by_number, stale_uploads_are_found_by_their_age, appended_parts_stay,
                a_write_is_completed_once;
            copies: a_copy_shares_the_bytes_of_its_source, a_copy_onto_itself_keeps_its_bytes,
                a_copy_is_decided_over_what_is_there, a_part_is_a_range_of_what_is_there,
                references_agree_with_a_map_of_holders;
            lists: pages_agree_with_a_map, positions_work_when_their_rows_are_gone, uploads_are_listed_like_keys;
            histories: random_histories_agree_with_a_map;
            quotas: usage_agrees_with_a_count, a_full_bucket_takes_what_does_not_grow, uploads_count_towards_a_quota,
                a_tenants_quota_is_over_its_buckets, of_many_writes_only_those_that_fit_are_kept,
                a_look_up_knows_the_room;
        );
    };
    (@cases $run:path; $($group:ident: $($case:ident),+;)+) => {
        mod plain {
            $($(
                #[test]
                fn $case() {
                    $run(async |metadata| $crate::metadata::suite::$group::$case(&metadata).await);
                }
            )+)+
        }
        mod unreliable {
            $($(
                #[test]
                fn $case() {
                    $run(async |metadata| {
                        let metadata = $crate::metadata::suite::Unreliable::new(metadata, 0x5eed);
                        $crate::metadata::suite::$group::$case(&metadata).await;
                    });
                }
            )+)+
        }
    };
}
