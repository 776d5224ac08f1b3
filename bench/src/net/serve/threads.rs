//! A blocking thread for each connection: what there is to be had without a runtime.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::Bound;
use crate::net::protocol::{HELLO_BYTES, MESSAGE_BYTES_MAX, Operation, Purpose, READY, cpu_answer};

pub(super) fn serve(address: SocketAddr, bound: &Bound) -> io::Result<()> {
    let listener = match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) => {
            bound.send(Err(error)).ok();
            return Ok(());
        }
    };
    bound.send(listener.local_addr()).ok();
    for stream in listener.incoming() {
        let stream = stream?;
        // A client that goes away is none of our business.
        std::thread::spawn(move || talk(stream).ok());
    }
    Ok(())
}

fn talk(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut hello = [0; HELLO_BYTES];
    stream.read_exact(&mut hello)?;
    let Some(purpose) = Purpose::decode(hello) else { return Ok(()) };
    let Purpose::Measure { operation, message_bytes } = purpose else {
        return stream.write_all(&cpu_answer("threads"));
    };
    stream.write_all(&[READY])?;
    match operation {
        Operation::Echo => {
            let mut message = vec![0; message_bytes];
            loop {
                stream.read_exact(&mut message)?;
                stream.write_all(&message)?;
            }
        }
        Operation::Upload => {
            let mut piece = vec![0; MESSAGE_BYTES_MAX];
            while stream.read(&mut piece)? > 0 {}
            Ok(())
        }
        Operation::Download => {
            let piece = vec![0; message_bytes];
            loop {
                stream.write_all(&piece)?;
            }
        }
    }
}
