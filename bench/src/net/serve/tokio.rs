//! The crate tokio, with its runtime of one thread.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Bound;
use crate::net::protocol::{HELLO_BYTES, MESSAGE_BYTES_MAX, Operation, Purpose, READY, cpu_answer};

pub(super) fn serve(address: SocketAddr, bound: &Bound) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => {
                bound.send(Err(error)).ok();
                return Ok(());
            }
        };
        bound.send(listener.local_addr()).ok();
        loop {
            let (stream, _) = listener.accept().await?;
            // A client that goes away is none of our business.
            tokio::spawn(async move { talk(stream).await.ok() });
        }
    })
}

async fn talk(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut hello = [0; HELLO_BYTES];
    stream.read_exact(&mut hello).await?;
    let Some(purpose) = Purpose::decode(hello) else { return Ok(()) };
    let Purpose::Measure { operation, message_bytes } = purpose else {
        return stream.write_all(&cpu_answer("tokio")).await;
    };
    stream.write_all(&[READY]).await?;
    match operation {
        Operation::Echo => {
            let mut message = vec![0; message_bytes];
            loop {
                stream.read_exact(&mut message).await?;
                stream.write_all(&message).await?;
            }
        }
        Operation::Upload => {
            let mut piece = vec![0; MESSAGE_BYTES_MAX];
            while stream.read(&mut piece).await? > 0 {}
            Ok(())
        }
        Operation::Download => {
            let piece = vec![0; message_bytes];
            loop {
                stream.write_all(&piece).await?;
            }
        }
    }
}
