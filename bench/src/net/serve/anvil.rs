//! Anvil's own runtime: small messages come by its ring of small buffers, streams straight into the buffers that go to disk, as
//! in the server.

use std::io;
use std::net::SocketAddr;

use anvil_model::io::{Reserve, Task as _, World};
use anvil_runtime::net::{Connection, Listener};
use anvil_runtime::{Core, Options};

use super::Bound;
use crate::net::protocol::{HELLO_BYTES, MESSAGE_BYTES_MAX, Operation, Purpose, READY, cpu_answer};

pub(super) fn start(address: SocketAddr, cpu: usize, bound: Bound) -> anyhow::Result<()> {
    let options = Options {
        cpus: vec![cpu],
        buffers_per_core: BUFFERS,
        progress_reserve: 1,
        abort_on_panic: false,
        ..Options::default()
    };
    // It runs until the process ends; nobody waits for it.
    anvil_runtime::start(options, move |core| {
        let bound = bound.clone();
        async move {
            if let Err(error) = serve(&core, address, &bound).await {
                eprintln!("anvil-bench: the server has ended: {error}");
            }
        }
    })?;
    Ok(())
}

async fn serve(core: &Core, address: SocketAddr, bound: &Bound) -> io::Result<()> {
    let mut listener = match Listener::bind(core, address) {
        Ok(listener) => listener,
        Err(error) => {
            bound.send(Err(error)).ok();
            return Ok(());
        }
    };
    bound.send(Ok(listener.local_addr())).ok();
    loop {
        let (connection, _) = listener.accept().await?;
        let world = core.clone();
        // A client that goes away is none of our business.
        core.spawn(async move { drop(talk(&world, connection).await) }).detach();
    }
}

async fn talk(core: &Core, mut connection: Connection) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let Some(hello) = message(&mut connection, Vec::new(), HELLO_BYTES).await? else { return Ok(()) };
    let hello = hello.try_into().expect("as many bytes as were asked for");
    let Some(purpose) = Purpose::decode(hello) else { return Ok(()) };
    let Purpose::Measure { operation, message_bytes } = purpose else {
        let answer = cpu_answer("anvil").to_vec();
        let all = 0..answer.len();
        return connection.send(answer, all).await.0;
    };
    connection.send(vec![READY], 0..1).await.0?;
    match operation {
        Operation::Echo => {
            let mut bytes = Vec::with_capacity(message_bytes);
            while let Some(request) = message(&mut connection, bytes, message_bytes).await? {
                let (result, sent) = connection.send(request, 0..message_bytes).await;
                result?;
                bytes = sent;
            }
            Ok(())
        }
        Operation::Upload => {
            let mut buffer = core.buffer(Reserve::Foreground).await;
            loop {
                let (result, filled) = connection.fill(buffer, 0..MESSAGE_BYTES_MAX).await;
                if result? < MESSAGE_BYTES_MAX {
                    return Ok(());
                }
                buffer = filled;
            }
        }
        Operation::Download => {
            let mut buffer = core.buffer(Reserve::Foreground).await;
            loop {
                let (result, sent) = connection.send(buffer, 0..message_bytes).await;
                result?;
                buffer = sent;
            }
        }
    }
}

/// The next `length` bytes, in `bytes`; `None` when the client has ended. Nobody sends more than that before it is answered.
async fn message(connection: &mut Connection, mut bytes: Vec<u8>, length: usize) -> io::Result<Option<Vec<u8>>> {
    bytes.clear();
    while bytes.len() < length {
        let received = connection.receive().await?;
        if received.is_empty() {
            return Ok(None);
        }
        bytes.extend_from_slice(&received);
    }
    if bytes.len() > length {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a client sent more than it said"));
    }
    Ok(Some(bytes))
}

/// A stream holds one: enough for as many connections as there may be.
const BUFFERS: usize = 260;
