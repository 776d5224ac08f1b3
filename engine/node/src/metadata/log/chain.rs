//! Which records of the log count.
//!
//! Each names the one that it follows, and so says that this one counts and that those between the two are void. A record
//! that is void itself says so in vain: one that failed on all disks but one, and comes back with that disk, may take back what
//! counted long since in the life that did not see it. The last record knows.

/// Where the records of a log stand, read from one that counts on.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    counted: u64,
    /// Behind the one that counted last; ascending. Each with the one that it follows.
    open: Vec<(u64, u64)>,
}

/// Why records are no history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A record that counts is not there.
    Missing(u64),
    /// Of two records that count, one takes the other one back.
    Forked { number: u64, follows: u64, counted: u64 },
}

impl Chain {
    /// Behind a record that counts.
    pub(crate) const fn behind(counted: u64) -> Self {
        Self { counted, open: Vec::new() }
    }

    /// The last one that counts for certain.
    pub(crate) const fn counted(&self) -> u64 {
        self.counted
    }

    /// Takes the next record. Gives those of which it is known now that they count, ascending.
    pub(crate) fn push(&mut self, number: u64, follows: u64) -> Result<Vec<u64>, Broken> {
        let due = self.path_to(follows)?;
        if let Some(last) = due.last() {
            self.counted = *last;
            self.open.retain(|(open, _)| open > last);
        }
        self.open.push((number, follows));
        Ok(due)
    }

    /// Whether the last record that came can count.
    pub(crate) fn end(&self) -> Result<(), Broken> {
        match self.open.last() {
            Some(&(number, follows)) if follows < self.counted => Err(self.forked(number, follows)),
            _ => Ok(()),
        }
    }

    fn path_to(&self, last: u64) -> Result<Vec<u64>, Broken> {
        let mut path = Vec::new();
        let mut at = last;
        while at > self.counted {
            let place = self.open.binary_search_by_key(&at, |(number, _)| *number);
            path.push(at);
            at = self.open[place.map_err(|_| Broken::Missing(at))?].1;
        }
        match path.last() {
            Some(&number) if at < self.counted => Err(self.forked(number, at)),
            _ => {
                path.reverse();
                Ok(path)
            }
        }
    }

    const fn forked(&self, number: u64, follows: u64) -> Broken {
        Broken::Forked { number, follows, counted: self.counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What counts of these records, each with the one that it follows, and what the last one is for.
    fn read(counted: u64, records: &[(u64, u64)]) -> Result<Vec<u64>, Broken> {
        let mut chain = Chain::behind(counted);
        let mut due = Vec::new();
        for &(number, follows) in records {
            due.extend(chain.push(number, follows)?);
        }
        chain.end().map(|()| due)
    }

    #[test]
    fn a_record_counts_when_one_that_counts_follows_it() {
        assert_eq!(read(0, &[]), Ok(vec![]));
        assert_eq!(read(0, &[(1, 0)]), Ok(vec![]));
        assert_eq!(read(0, &[(1, 0), (2, 1), (3, 2)]), Ok(vec![1, 2]));
        // 2 and 3 failed.
        assert_eq!(read(0, &[(1, 0), (2, 1), (3, 1), (4, 1), (5, 4)]), Ok(vec![1, 4]));
        assert_eq!(read(0, &[(1, 0), (4, 3)]), Err(Broken::Missing(3)));
    }

    /// Two disks: 9 failed on one of them, 10 was not yet on the other one when the node ended, which went on without the
    /// one that has 10.
    #[test]
    fn what_comes_back_takes_nothing_back() {
        let records = [(8, 7), (9, 8), (10, 8), (100, 9), (101, 100)];
        assert_eq!(read(7, &records), Ok(vec![8, 9, 100]));
        assert_eq!(read(8, &records[1..]), Ok(vec![9, 100]));
        // The index has 9 already.
        assert_eq!(read(9, &records[2..]), Ok(vec![100]));
        assert_eq!(read(9, &records[2..4]), Ok(vec![]));
    }

    #[test]
    fn histories_that_both_went_on_are_told() {
        let forked = Err(Broken::Forked { number: 10, follows: 8, counted: 9 });
        assert_eq!(read(9, &[(10, 8)]), forked);
        assert_eq!(read(8, &[(9, 8), (10, 8), (100, 9), (101, 10)]), forked);
    }
}
