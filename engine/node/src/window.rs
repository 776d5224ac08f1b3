//! The bytes of a window from its cells: k of them side by side into one buffer; what a cell lacks is made from others.
//!
//! A cell that is missing, damaged, or on a disk that fails or lets wait, costs a GET the same columns of k other cells, and
//! nothing else: its bytes are right or they are not given. What is found damaged or missing is noted for `debt`. What is encrypted is
//! decrypted behind that, so that a cell is made again without a key.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::pin::pin;

use anvil_erasure::Code;
use anvil_model::format::Encryption;
use anvil_model::geometry;
use anvil_model::io::{Reserve, World};
use anvil_model::profile::Profile;
use anvil_store::{CellBytes, CellError, DiskState, Doubtful, Located, Piece, ReadError};
use futures_util::future::{Either, join_all, select};

use crate::Node;
use crate::encryption::{Decryptor, in_frames};
use crate::get::StreamError;
use crate::metadata::mutation::LostShard;
use crate::spread::ShardSet;
use crate::stripe::Stripe;

/// What to read of a window, and what to make from it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    /// Cells and columns of them, none twice.
    reads: Vec<(u8, Range<usize>)>,
    /// What is wanted, in order.
    wanted: Vec<Wanted>,
    /// Columns that are made of the cells that are not read.
    columns: Range<usize>,
}

/// Columns of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    shard: u8,
    columns: Range<usize>,
}

/// What was wanted of a cell, as it is on disk.
struct Got<B> {
    piece: Piece<B>,
    /// How it is encrypted, as the record of `told_by` says.
    encryption: Option<Encryption>,
    told_by: u8,
    /// It was read, and not made from others.
    read: bool,
}

/// A whole cell that was made from others.
pub(crate) struct MadeCell<B> {
    pub(crate) piece: Piece<B>,
    /// As all cells of its window are.
    pub(crate) encryption: Option<Encryption>,
}

/// Cells that could not be read.
type Failed = Vec<(u8, CellError)>;

impl<W: World> Node<W> {
    /// Bytes of a window, verified, decrypted and in order: one piece for each data cell that they touch. Of a contested blob other
    /// records are read when these cannot be.
    pub(crate) async fn read_window(
        &self,
        located: &Located,
        range: Range<usize>,
    ) -> Result<VecDeque<Piece<W::Buffer>>, StreamError> {
        match self.read_located(located, range.clone()).await {
            Err(StreamError::Read(refusal)) if located.contested && refusal != ReadError::Closing => {
                self.read_otherwise(located, range).await.ok_or(refusal.into())
            }
            done => done,
        }
    }

    /// The same bytes from other records, if there are any that can be read.
    async fn read_otherwise(&self, located: &Located, range: Range<usize>) -> Option<VecDeque<Piece<W::Buffer>>> {
        let blob = located.blob;
        let mut at = geometry::window_start(located.profile, located.window) + range.start as u64;
        let end = at + range.len() as u64;
        let mut doubtful: Vec<Doubtful> = located.records().collect();
        let mut pieces = VecDeque::new();
        while at < end {
            let other = self.store.locate_otherwise(blob, at, doubtful.clone()).await.ok()??;
            if other.records().all(|record| doubtful.contains(&record)) {
                return None;
            }
            let start = usize::try_from(at - geometry::window_start(other.profile, other.window)).ok()?;
            let held_bytes = other.cells[0].bytes * usize::from(other.profile.data);
            let until = held_bytes.min(start + usize::try_from(end - at).ok()?);
            if until <= start {
                return None;
            }
            match self.read_located(&other, start..until).await {
                Ok(read) => {
                    pieces.extend(read);
                    at += (until - start) as u64;
                }
                Err(_) => doubtful.extend(other.records()),
            }
        }
        Some(pieces)
    }

    async fn read_located(
        &self,
        located: &Located,
        range: Range<usize>,
    ) -> Result<VecDeque<Piece<W::Buffer>>, StreamError> {
        let stripe = stripe_of(located);
        let touched = (0..stripe.profile().data).filter_map(|shard| {
            let held = stripe.held(shard);
            let columns = range.start.max(held.start)..range.end.min(held.end);
            let shifted = columns.start.saturating_sub(held.start)..columns.end.saturating_sub(held.start);
            (columns.start < columns.end).then_some(Wanted { shard, columns: shifted })
        });
        let touched: Vec<Wanted> = touched.collect();
        // Whole frames: their checksums want as much, and only whole ones can be decrypted.
        let frames = |Wanted { shard, columns }: &Wanted| Wanted {
            shard: *shard,
            columns: in_frames(columns, stripe.cell_bytes()),
        };
        let wanted: Vec<Wanted> = touched.iter().map(frames).collect();
        let pieces = self.read_plain(located, &wanted).await?;
        let narrowed = touched.iter().zip(&wanted).zip(pieces).map(|((touched, wanted), piece)| {
            let at = piece.range.start + touched.columns.start - wanted.columns.start;
            Piece { buffer: piece.buffer, range: at..at + touched.columns.len() }
        });
        Ok(narrowed.collect())
    }

    /// How a window is encrypted, if it is.
    pub(crate) async fn encryption_of(&self, located: &Located) -> Result<Option<Encryption>, ReadError> {
        let wanted = [Wanted { shard: 0, columns: in_frames(&(0..1), stripe_of(located).cell_bytes()) }];
        let got = self.read_cells(located, &wanted, ShardSet::default()).await?;
        Ok(got.into_iter().next().and_then(|got| got.encryption))
    }

    /// All of one cell, made from others, in its slot of a stripe.
    pub(crate) async fn make_cell(&self, located: &Located, shard: u8) -> Result<MadeCell<W::Buffer>, ReadError> {
        let wanted = [Wanted { shard, columns: 0..stripe_of(located).cell_bytes() }];
        let mut got = self.read_cells(located, &wanted, ShardSet::from_iter([shard])).await?;
        let Got { piece, encryption, .. } = got.pop().expect("one was wanted");
        Ok(MadeCell { piece, encryption })
    }

    /// Reads and makes what is wanted, and decrypts it. A cell whose bytes are not those that were encrypted is like a lost
    /// one; it is called damaged only when the others gave the right bytes, because a key that is not the right one would
    /// make every cell look like that.
    async fn read_plain(&self, located: &Located, wanted: &[Wanted]) -> Result<Vec<Piece<W::Buffer>>, StreamError> {
        let mut mistrusted = ShardSet::default();
        let mut damaged = Vec::new();
        loop {
            let got = match self.read_cells(located, wanted, mistrusted).await {
                Err(ReadError::Missing(blob)) if mistrusted.count() > 0 => return Err(ReadError::Corrupt(blob).into()),
                got => got?,
            };
            match self.decrypt(located, wanted, got)? {
                Ok(pieces) => {
                    for shard in damaged.into_iter().filter(|_| located.profile.parity > 0) {
                        self.repairs.note_damaged(lost_shard(located, shard));
                    }
                    return Ok(pieces);
                }
                Err(NotAuthentic { told_by, read }) => {
                    tracing::error!(blob = %located.blob, shard = told_by, "what was read is not what was encrypted");
                    mistrusted.insert(told_by);
                    damaged.extend(read.then_some(told_by));
                }
            }
        }
    }

    /// Decrypts what is encrypted; says by whose record it is not what was encrypted.
    fn decrypt(
        &self,
        located: &Located,
        wanted: &[Wanted],
        got: Vec<Got<W::Buffer>>,
    ) -> Result<Decrypted<W::Buffer>, StreamError> {
        let cell_bytes = stripe_of(located).cell_bytes();
        let mut latest: Option<Decryptor> = None;
        let mut pieces = Vec::with_capacity(got.len());
        for (Wanted { shard, columns }, Got { mut piece, encryption, told_by, read }) in wanted.iter().zip(got) {
            if let Some(encryption) = encryption {
                let decryptor = match latest.take().filter(|latest| latest.is_for(&encryption)) {
                    Some(latest) => latest,
                    None => {
                        let decryptor = self.keys.decryptor(located.blob, located.profile, &encryption);
                        decryptor.ok_or(StreamError::NoKey(encryption.key))?
                    }
                };
                let bytes = &mut piece.buffer[piece.range.clone()];
                if decryptor.decrypt(located.window, *shard, cell_bytes, columns, bytes).is_err() {
                    return Ok(Err(NotAuthentic { told_by, read }));
                }
                latest = Some(decryptor);
            }
            pieces.push(piece);
        }
        Ok(Ok(pieces))
    }

    /// Reads and makes what is wanted, as it is on disk, without the cells that are `lost`.
    async fn read_cells(
        &self,
        located: &Located,
        wanted: &[Wanted],
        mut lost: ShardSet,
    ) -> Result<Vec<Got<W::Buffer>>, ReadError> {
        let profile = located.profile;
        let here: ShardSet = (0..profile.shards()).filter(|&shard| located.cell(shard).is_some()).collect();
        let mut refusal = ReadError::Missing(located.blob);
        let suspect = |shard| self.repairs.note_suspect(located.blob, shard, located.window);
        if profile.parity > 0 {
            let not_here = |shard: &u8| !here.contains(*shard) && !lost.contains(*shard);
            (0..profile.shards()).filter(not_here).for_each(suspect);
        }
        loop {
            let available = here.without(lost);
            let avoided = self.avoided(located, available);
            let plan = Plan::new(profile, located.blob.sequence, wanted, available.without(avoided))
                .or_else(|| Plan::new(profile, located.blob.sequence, wanted, available));
            let Some(plan) = plan else { return Err(refusal) };
            match self.read_in_time(located, &plan, wanted, available).await {
                Ok(got) => return Ok(got),
                Err(failed) => {
                    for (shard, error) in failed {
                        refusal = error.into();
                        match error {
                            CellError::Closing => return Err(refusal),
                            CellError::Corrupt(_) if profile.parity > 0 => {
                                self.repairs.note_damaged(lost_shard(located, shard));
                            }
                            CellError::Missing(_) | CellError::Device { .. } if profile.parity > 0 => suspect(shard),
                            CellError::Corrupt(_) | CellError::Missing(_) | CellError::Device { .. } => {}
                        }
                        lost.insert(shard);
                    }
                }
            }
        }
    }

    /// Shards on disks that failed or are slow: asked only when there is no other way.
    fn avoided(&self, located: &Located, available: ShardSet) -> ShardSet {
        let shards = (0..located.profile.shards()).filter(|&shard| available.contains(shard));
        let disks = self.store.disks();
        let failed = |disk| disks.iter().any(|view| view.id == disk && view.state != DiskState::Online);
        let avoided = shards.filter(|&shard| {
            let disk = located.cell(shard).expect("it is available").disk;
            failed(disk) || self.hedging.avoids(disk, || self.world.random())
        });
        avoided.collect()
    }

    /// Carries out a plan. When cells let wait for longer than usual, a plan without them is begun beside it, and the
    /// first of both counts.
    async fn read_in_time(
        &self,
        located: &Located,
        plan: &Plan,
        wanted: &[Wanted],
        available: ShardSet,
    ) -> Result<Vec<Got<W::Buffer>>, Failed> {
        let waiting = Cell::new(plan.reads.iter().map(|(shard, _)| *shard).collect::<ShardSet>());
        let patience = self.hedging.patience();
        let first = pin!(self.carry_out(located, plan, &waiting));
        let first = match select(first, pin!(self.world.sleep(patience))).await {
            Either::Left((done, _)) => return done,
            Either::Right(((), first)) => first,
        };
        let late = waiting.get();
        let Some(other) = Plan::new(located.profile, located.blob.sequence, wanted, available.without(late)) else {
            return first.await;
        };
        let late_disks = || {
            let shards = (0..located.profile.shards()).filter(|&shard| late.contains(shard));
            shards.map(|shard| located.cell(shard).expect("it is read").disk)
        };
        late_disks().for_each(|disk| self.hedging.note(disk, patience, true));
        let waiting_too = Cell::new(ShardSet::default());
        let second = pin!(self.carry_out(located, &other, &waiting_too));
        match select(first, second).await {
            Either::Left((Ok(got), _)) => Ok(got),
            Either::Right((Ok(got), _)) => {
                late_disks().for_each(|disk| self.hedging.note_outrun(disk));
                Ok(got)
            }
            Either::Left((Err(failed), second)) => second.await.map_err(|_| failed),
            Either::Right((Err(_), first)) => first.await,
        }
    }

    /// Reads what the plan says into one buffer, and makes what is wanted and was not read.
    async fn carry_out(
        &self,
        located: &Located,
        plan: &Plan,
        waiting: &Cell<ShardSet>,
    ) -> Result<Vec<Got<W::Buffer>>, Failed> {
        let stripe = stripe_of(located);
        let buffer = self.world.buffer(Reserve::Foreground).await;
        let began = self.world.now();
        // A copy may lie in a pack, whose reads want more room than a slot has; and it is read alone.
        let copies = located.profile.data == 1;
        let mut slots: Vec<Option<W::Buffer>> = if copies {
            let mut slots: Vec<_> = (0..located.profile.shards()).map(|_| None).collect();
            slots[usize::from(plan.reads[0].0)] = Some(buffer);
            slots
        } else {
            stripe.split(buffer).into_iter().map(Some).collect()
        };
        let reads = plan.reads.iter().map(|(shard, columns)| {
            let slot = slots[usize::from(*shard)].take().expect("no cell is read twice");
            async move {
                let read = self.store.read_cell(located, *shard, columns.clone(), slot).await;
                let mut left = waiting.get();
                left.remove(*shard);
                waiting.set(left);
                let disk = located.cell(*shard).expect("plans read what is here").disk;
                self.hedging.note(disk, self.world.now().since(began), false);
                read
            }
        });
        let (mut read, mut failed) = (Vec::with_capacity(plan.reads.len()), Failed::new());
        for ((shard, columns), (result, buffer)) in plan.reads.iter().zip(join_all(reads).await) {
            match result {
                Ok(CellBytes { range, encryption }) => {
                    let piece = Piece { buffer, range };
                    read.push(ReadCell { shard: *shard, columns: columns.clone(), piece, encryption });
                }
                Err(error) => failed.push((*shard, error)),
            }
        }
        if !failed.is_empty() {
            return Err(failed);
        }
        if copies {
            let copy = read.pop().expect("one copy is read");
            return Ok(vec![copy.into_got(&plan.wanted[0].columns)]);
        }
        self.make_lost(stripe, plan, &read, &mut slots);
        let (told_by, encryption) = (read[0].shard, read[0].encryption.clone());
        let got = plan.wanted.iter().map(|Wanted { shard, columns }| {
            match read.iter().position(|cell| cell.shard == *shard) {
                Some(at) => read.swap_remove(at).into_got(columns),
                None => {
                    let buffer = slots[usize::from(*shard)].take().expect("it was made there");
                    let piece = Piece { buffer, range: stripe.in_slot(columns) };
                    Got { piece, encryption: encryption.clone(), told_by, read: false }
                }
            }
        });
        Ok(got.collect())
    }

    /// Makes the wanted cells that were not read, in their slots.
    fn make_lost(&self, stripe: Stripe, plan: &Plan, read: &[ReadCell<W::Buffer>], slots: &mut [Option<W::Buffer>]) {
        let is_lost = |wanted: &&Wanted| read.iter().all(|cell| cell.shard != wanted.shard);
        let lost: Vec<u8> = plan.wanted.iter().filter(is_lost).map(|wanted| wanted.shard).collect();
        if lost.is_empty() {
            return;
        }
        let Profile { data, parity } = stripe.profile();
        let present: Vec<(u8, &[u8])> = read.iter().map(|cell| (cell.shard, cell.columns(&plan.columns))).collect();
        let columns = stripe.in_slot(&plan.columns);
        let mut into: Vec<&mut [u8]> = Vec::with_capacity(lost.len());
        for (slot, shard) in slots.iter_mut().zip(0..) {
            if lost.contains(&shard) {
                into.push(&mut slot.as_mut().expect("it was not read")[columns.clone()]);
            }
        }
        self.hedging.note_decoded(lost.len() * plan.columns.len());
        // Both are in the order of shards.
        Code::new(data, parity, self.encoding).rebuild_all(&lost, &present[..data.into()], &mut into);
    }
}

/// A window as long as all its cells: where a byte lies in them does not depend on where the blob ends.
/// A shard of which a cell was read.
fn lost_shard(located: &Located, shard: u8) -> LostShard {
    let &Located { blob, profile, .. } = located;
    LostShard { blob, profile, shard, disk: located.cell(shard).expect("it was read").disk }
}

fn stripe_of(located: &Located) -> Stripe {
    Stripe::new(located.profile, usize::from(located.profile.data) * located.cells[0].bytes)
}

/// A cell that was read.
struct ReadCell<B> {
    shard: u8,
    /// Which columns of it.
    columns: Range<usize>,
    piece: Piece<B>,
    encryption: Option<Encryption>,
}

/// Pieces as they were before they were encrypted.
type Decrypted<B> = Result<Vec<Piece<B>>, NotAuthentic>;

/// What was read is not what was encrypted.
struct NotAuthentic {
    /// The shard whose record said how it was encrypted.
    told_by: u8,
    /// That shard was read itself.
    read: bool,
}

impl<B: std::ops::Deref<Target = [u8]>> ReadCell<B> {
    fn columns(&self, columns: &Range<usize>) -> &[u8] {
        &self.piece.buffer[self.piece.range.clone()][columns.start - self.columns.start..][..columns.len()]
    }

    fn into_got(self, columns: &Range<usize>) -> Got<B> {
        let at = self.piece.range.start + columns.start - self.columns.start;
        let piece = Piece { buffer: self.piece.buffer, range: at..at + columns.len() };
        Got { piece, encryption: self.encryption, told_by: self.shard, read: true }
    }
}

impl Plan {
    /// Reads what is wanted where it is available, and makes the rest from as few cells and columns as can be. `None` when
    /// too few are available. Of copies, `spread` says which one is read, so that all disks have some to do.
    fn new(profile: Profile, spread: u64, wanted: &[Wanted], available: ShardSet) -> Option<Self> {
        let present = |shard: &u8| available.contains(*shard);
        if profile.data == 1 {
            let shards = profile.shards();
            let first = u8::try_from(spread % u64::from(shards)).expect("below a u8");
            let shard = (0..shards).map(|shard| (first + shard) % shards).find(present)?;
            let columns = wanted[0].columns.clone();
            return Some(Self { reads: vec![(shard, columns.clone())], wanted: wanted.to_vec(), columns });
        }
        let lost = || wanted.iter().filter(|wanted| !available.contains(wanted.shard));
        let mut plan = Self { reads: Vec::new(), wanted: wanted.to_vec(), columns: 0..0 };
        if lost().next().is_none() {
            plan.reads = wanted.iter().map(|Wanted { shard, columns }| (*shard, columns.clone())).collect();
            return Some(plan);
        }
        let start = lost().map(|wanted| wanted.columns.start).min().expect("one is lost");
        let end = lost().map(|wanted| wanted.columns.end).max().expect("one is lost");
        plan.columns = start..end;
        // The wanted ones are read anyway; then data, which a next piece may want from the drive's cache, then parity.
        let also = |shard: &u8| wanted.iter().all(|wanted| wanted.shard != *shard);
        let asked = wanted.iter().map(|wanted| wanted.shard);
        let helpers = asked.chain((0..profile.shards()).filter(also)).filter(present);
        for shard in helpers {
            let own = wanted.iter().find(|wanted| wanted.shard == shard);
            // No more than k give equations; a wanted one beyond them cannot be, as one of k is lost.
            if plan.reads.len() == usize::from(profile.data) {
                break;
            }
            let columns = own.map_or(start..end, |own| own.columns.start.min(start)..own.columns.end.max(end));
            plan.reads.push((shard, columns));
        }
        (plan.reads.len() == usize::from(profile.data)).then_some(plan)
    }
}
