//! A history that begins with the rows of another one.

use anvil_model::ids::Generation;

use super::{Decided, No, One, changed};
use crate::metadata::Refusal;
use crate::metadata::mutation::Outcome;
use crate::metadata::rows::{Counters, Rows};
use crate::metadata::taken::TakenRow;

impl<R: Rows> One<'_, R> {
    pub(super) fn take_in(&mut self, rows: &[TakenRow]) -> Result<Decided, No> {
        self.at_the_beginning()?;
        for row in rows {
            match row {
                TakenRow::Writer(row) => self.rows.put_writer(row),
                TakenRow::Write(row) => self.rows.put_write(row),
                TakenRow::Bucket(row) => self.rows.put_bucket(row),
                TakenRow::TenantQuota { tenant, quota } => self.rows.put_tenant_quota(*tenant, quota),
                TakenRow::Usage { of, usage } => self.rows.add_usage(*of, *usage),
                TakenRow::Head { bucket, key, version } => self.rows.put_head(*bucket, key, version),
                TakenRow::Segment { bucket, version, segment } => self.rows.put_segment(*bucket, *version, segment),
                TakenRow::Blob(row) => self.rows.put_blob(row),
                TakenRow::Garbage(row) => self.rows.put_garbage(row),
                TakenRow::Upload(row) => self.rows.put_upload(row),
                TakenRow::Part { upload, part } => self.rows.put_part(*upload, part),
            }?;
        }
        Ok(changed(Outcome::TakenIn))
    }

    pub(super) fn begin_at(&mut self, generation: Generation) -> Result<Decided, No> {
        self.at_the_beginning()?;
        if generation < self.stamp.generation {
            return Err(Refusal::InvalidRequest("no generation is given twice").into());
        }
        Ok(changed(Outcome::TakenIn))
    }

    /// Each ordinary change takes a generation: before the first of them there was none.
    fn at_the_beginning(&self) -> Result<(), Refusal> {
        match self.stamp.generation {
            Counters::FIRST => Ok(()),
            _ => Err(Refusal::InvalidRequest(
                "rows are taken in at the beginning of a history, and this one has changes",
            )),
        }
    }
}
