//! The crate monoio, with its default ring.

use std::io;
use std::net::SocketAddr;

use monoio::io::{AsyncReadRent, AsyncReadRentExt, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

use super::Bound;
use crate::net::protocol::{HELLO_BYTES, MESSAGE_BYTES_MAX, Operation, Purpose, READY, cpu_answer};

pub(super) fn serve(address: SocketAddr, bound: &Bound) -> io::Result<()> {
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build()?;
    runtime.block_on(async {
        let listener = match TcpListener::bind(address) {
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
            monoio::spawn(async move { talk(stream).await.ok() });
        }
    })
}

async fn talk(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (result, hello) = stream.read_exact(vec![0; HELLO_BYTES]).await;
    result?;
    let hello = hello.try_into().expect("as many bytes as were asked for");
    let Some(purpose) = Purpose::decode(hello) else { return Ok(()) };
    let Purpose::Measure { operation, message_bytes } = purpose else {
        return stream.write_all(cpu_answer("monoio").to_vec()).await.0.map(drop);
    };
    stream.write_all(vec![READY]).await.0?;
    match operation {
        Operation::Echo => {
            let mut message = vec![0; message_bytes];
            loop {
                let (result, read) = stream.read_exact(message).await;
                result?;
                let (result, written) = stream.write_all(read).await;
                result?;
                message = written;
            }
        }
        Operation::Upload => {
            let mut piece = vec![0; MESSAGE_BYTES_MAX];
            loop {
                let (result, read) = stream.read(piece).await;
                if result? == 0 {
                    return Ok(());
                }
                piece = read;
            }
        }
        Operation::Download => {
            let mut piece = vec![0; message_bytes];
            loop {
                let (result, written) = stream.write_all(piece).await;
                result?;
                piece = written;
            }
        }
    }
}
