//! Anonymous memory straight from the kernel.

use std::io;
use std::ptr::NonNull;

/// Zeroed memory of its own mapping, unmapped when dropped. Nobody derives references to all of it: its users lend out
/// disjoint parts.
#[derive(Debug)]
pub(crate) struct Region {
    start: NonNull<u8>,
    length: usize,
    mapped: NonNull<u8>,
    mapped_length: usize,
}

impl Region {
    /// Maps at least `length` bytes, aligned to a huge page.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        assert!(length > 0, "an empty region has no address");
        let mapped_length = length.next_multiple_of(PAGE) + HUGE_PAGE_BYTES;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no memory of ours.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped_length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped = NonNull::new(mapped.cast::<u8>()).expect("mmap gives no null page without MAP_FIXED");
        let skip = mapped.align_offset(HUGE_PAGE_BYTES);
        // SAFETY: `skip` is less than HUGE_PAGE_BYTES, which the mapping is longer than `length` by.
        let start = unsafe { mapped.add(skip) };
        Ok(Self { start, length, mapped, mapped_length })
    }

    /// Asks for huge pages; a kernel without them ignores it.
    pub(crate) fn prefer_huge_pages(&self) {
        // SAFETY: the range lies in our mapping, which lives as long as `self`; the advice changes no content.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_HUGEPAGE) };
    }

    /// The address of the byte at `offset`.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.length, "inside the region");
        // SAFETY: `offset` is inside the mapping.
        unsafe { self.start.add(offset) }
    }
}

/// Tells AddressSanitizer which parts of a region are lent. It knows of allocations only, so without this it would not see
/// a slot that is used after it was given back.
#[cfg(anvil_asan)]
impl Region {
    /// Nobody may touch these bytes from now on.
    pub(crate) fn forbid(&self, offset: usize, length: usize) {
        // SAFETY: marks bytes of our mapping, and touches none of them.
        unsafe { __asan_poison_memory_region(self.at(offset).as_ptr().cast(), length) };
    }

    /// These bytes are lent.
    pub(crate) fn allow(&self, offset: usize, length: usize) {
        // SAFETY: as above.
        unsafe { __asan_unpoison_memory_region(self.at(offset).as_ptr().cast(), length) };
    }
}

#[cfg(anvil_asan)]
unsafe extern "C" {
    fn __asan_poison_memory_region(start: *const libc::c_void, length: usize);
    fn __asan_unpoison_memory_region(start: *const libc::c_void, length: usize);
}

#[cfg(not(anvil_asan))]
#[expect(clippy::unused_self, reason = "does something only with AddressSanitizer")]
impl Region {
    pub(crate) const fn forbid(&self, _offset: usize, _length: usize) {}
    pub(crate) const fn allow(&self, _offset: usize, _length: usize) {}
}

impl Drop for Region {
    fn drop(&mut self) {
        self.allow(0, self.length);
        // SAFETY: the mapping is ours; whoever lent parts of it to the kernel kept this region alive until the last
        // completion, and whoever lent parts to safe code holds it in the guard.
        unsafe { libc::munmap(self.mapped.as_ptr().cast(), self.mapped_length) };
    }
}

/// The size of a huge page on x86-64 and on arm64 with 4 KiB pages.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;
const PAGE: usize = 4096;
