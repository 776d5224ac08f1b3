//! What an operation asks of the kernel, in the words that both engines understand.

use std::os::fd::RawFd;

use crate::disk::FileRef;

/// One operation. The pointers name memory that its slot owns until the last completion, and the descriptors files that
/// the slot keeps open.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// Connections until told otherwise.
    Accept {
        socket: RawFd,
    },
    Connect {
        socket: RawFd,
        address: *const libc::sockaddr,
        length: libc::socklen_t,
    },
    /// Bytes in the core's small buffers until told otherwise.
    ReceiveMany {
        socket: RawFd,
    },
    /// `all` asks to wait until the memory is full or the stream has ended; fewer bytes may come all the same.
    Receive {
        socket: RawFd,
        memory: *mut u8,
        length: u32,
        all: bool,
    },
    Send {
        socket: RawFd,
        memory: *const u8,
        length: u32,
    },
    SendMessage {
        socket: RawFd,
        message: *const libc::msghdr,
    },
    /// Completes when the peer sends nothing more, or the connection is broken.
    HangUp {
        socket: RawFd,
    },
    /// Reads the counter of an eventfd once it is not zero.
    WaitEvent {
        eventfd: RawFd,
        counter: *mut u8,
    },
    Disk {
        file: FileRef,
        call: DiskCall,
    },
}

/// What is to be done with a disk's file. `registered` is the index of the registered buffer that the memory lies in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DiskCall {
    Read {
        memory: *mut u8,
        length: u32,
        offset: u64,
        registered: Option<u16>,
    },
    Write {
        memory: *const u8,
        length: u32,
        offset: u64,
        registered: Option<u16>,
    },
    Flush,
    /// Reserves blocks and extends the file to their end.
    Allocate {
        offset: u64,
        length: u64,
    },
}

/// A peer that has gone is an error of the send, not a signal.
pub(super) const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL;
